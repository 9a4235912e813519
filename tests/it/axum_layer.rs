//! axum_layer

//! audit_api

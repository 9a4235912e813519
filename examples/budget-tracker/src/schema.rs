//! The application's tables, as the migrations make them.

diesel::table! {
    users (id) {
        id -> BigInt,
        email -> Text,
        name -> Text,
        password_hash -> Text,
        birthday -> Text,
        gender -> Text,
        income -> Double,
        currency -> Text,
        budget_style -> Text,
        goals -> Text,
        week_start -> Text,
    }
}

diesel::table! {
    expenses (id) {
        id -> BigInt,
        user_id -> BigInt,
        amount -> Double,
        category -> Text,
        description -> Text,
        date -> Text,
    }
}

diesel::table! {
    sessions (token_sha256) {
        token_sha256 -> Text,
        user_id -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::joinable!(expenses -> users (user_id));
diesel::joinable!(sessions -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(users, expenses, sessions);

//! What a user sees of the attributes at compile time.

/// Every mistake is reported at its place, with the fix, and nothing else fails because of it;
/// what is right compiles without warnings, and runs as it did before.
#[test]
fn attributes_say_what_is_wrong() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("fail/*.rs");
    cases.pass("pass/*.rs");
}

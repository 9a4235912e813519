//! diesel.

/// Makes every later connection report to us.
pub(crate) fn install() {}

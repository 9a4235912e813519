//! What the fuzz targets call; only in a build for them (`--cfg fuzzing`).

use std::path::Path;
use std::sync::LazyLock;

use crate::detect::{Detector, Limits, Media, Message, Part};
use crate::vocabulary::{Fingerprint, Kind};

/// The first byte says which database, the rest is text, and after a zero byte binds.
#[cfg(feature = "sql-fallback")]
pub fn sql(input: &[u8]) {
    crate::integrations::diesel::fuzz(input);
}

/// As each kind of body. Some values are registered, one of each kind; the address is the first.
pub fn scan(input: &[u8]) {
    static DETECTOR: LazyLock<Detector> = LazyLock::new(|| {
        let detector = Detector::new(&[7; 32]);
        let values = [
            (Kind::Email, "ada@example.com"),
            (Kind::Text, "ada lovelace"),
            (Kind::Phone, "15550100001"),
            (Kind::Number, "4200.5"),
            (Kind::Date, "1990-01-02"),
            (Kind::Id, "aB-02134"),
        ];
        for (place, (kind, canonical)) in values.into_iter().enumerate() {
            let mut fingerprint = [0; 32];
            fingerprint[0] = u8::try_from(place).unwrap_or_default();
            detector.insert(&detector.entry(kind, canonical), Fingerprint(fingerprint));
        }
        detector
    });
    let scan = |bytes: &[u8], media| {
        let part = Part {
            place: "body".to_owned(),
            bytes,
            media,
        };
        let scan = DETECTOR.scan(&Message { parts: vec![part] }, Limits::default());
        assert!(scan.hits.len() <= Limits::default().hits);
        scan.hits
    };
    for media in [Media::Json, Media::Form, Media::Url, Media::Text] {
        scan(input, media);
    }
    // An address on a line of its own is found, whatever stands above or below it.
    for bytes in [
        [b"ada@example.com\n", input].concat(),
        [input, b"\nada@example.com"].concat(),
    ] {
        let hits = scan(&bytes, Media::Text);
        assert!(hits.iter().any(|hit| hit.fingerprint == Fingerprint([0; 32])));
    }
}

/// A configuration in each syntax. What is wrong with it is said in one line.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for file in ["c.yaml", "c.json", "c.toml"] {
        if let Err(error) = crate::config::from_text(Path::new(file), text) {
            assert!(error.is_config() && !error.to_string().contains('\n'));
        }
    }
}

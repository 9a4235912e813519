//! Bodies that ureq reads without using them up, told by their type.

use std::fs::File;

/// The bytes of a body that is in memory. ureq seals the trait, so that the list is known; arrays
/// have a type for each length, and are read through it.
pub(super) fn bytes<T>(body: &T) -> Option<&[u8]> {
    None.or_else(|| as_type::<T, &str>(body).map(|text| text.as_bytes()))
        .or_else(|| as_type::<T, String>(body).map(String::as_bytes))
        .or_else(|| as_type::<T, &String>(body).map(|text| text.as_bytes()))
        .or_else(|| as_type::<T, Vec<u8>>(body).map(Vec::as_slice))
        .or_else(|| as_type::<T, &Vec<u8>>(body).map(|bytes| bytes.as_slice()))
        .or_else(|| as_type::<T, &[u8]>(body).copied())
}

/// A file.
pub(super) fn file<T>(body: &T) -> Option<&File> {
    as_type::<T, File>(body).or_else(|| as_type::<T, &File>(body).copied())
}

pub(super) fn is<T, U>() -> bool {
    typeid::of::<T>() == typeid::of::<U>()
}

/// The value as what it is.
fn as_type<T, U>(value: &T) -> Option<&U> {
    is::<T, U>().then(|| {
        // SAFETY: `T` and `U` are one type, up to lifetimes. `U` is named here alone, with none but those
        // that end with the borrow of `value`, and a `T` outlives that.
        unsafe { &*std::ptr::from_ref(value).cast::<U>() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_by_type_is_what_ureq_reads() {
        fn same<T: ureq::AsSendBody>(mut body: T, told: bool) {
            let ours = bytes(&body).map(<[u8]>::to_vec);
            assert_eq!(ours.is_some(), told);
            let mut read = Vec::new();
            std::io::Read::read_to_end(&mut body.as_body().into_reader(), &mut read).unwrap_or_default();
            assert!(ours.is_none_or(|ours| ours == read));
        }
        let (text, list) = ("text".to_owned(), vec![1_u8, 2]);
        same("str", true);
        same(text.as_str(), true);
        same(text.clone(), true);
        same(&text, true);
        same(list.as_slice(), true);
        same(list.clone(), true);
        same(&list, true);
        same((), false);
        same(&[1_u8, 2], false);

        assert!(file(&"text").is_none());
    }
}

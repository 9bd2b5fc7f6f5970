//! Answer of a handler.

use std::borrow::Cow;

use bytes::Bytes;

/// Answer of a handler: an output, or that nothing more is to be done about its task.
///
/// Whatever is an output becomes a reply by itself, so that a handler which never skips returns
/// just that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<O = Vec<u8>> {
    /// The task is `ok`, and this is its output.
    Output(O),
    /// The task ends here, with a `skipped` record: it is neither run again nor seen by later
    /// stages.
    Skip,
}

impl<O> From<O> for Reply<O> {
    fn from(output: O) -> Self {
        Self::Output(output)
    }
}

/// Other types that can be the bytes of an output.
macro_rules! into_bytes {
    ($($type:ty),*) => {$(
        impl From<$type> for Reply {
            fn from(output: $type) -> Self {
                Self::Output(output.into())
            }
        }
    )*};
}

into_bytes!(String, &str, &[u8], Box<[u8]>, Cow<'_, [u8]>, Bytes);

impl From<Cow<'_, str>> for Reply {
    fn from(output: Cow<'_, str>) -> Self {
        output.into_owned().into()
    }
}

impl<const N: usize> From<[u8; N]> for Reply {
    fn from(output: [u8; N]) -> Self {
        Self::Output(output.into())
    }
}

impl<const N: usize> From<&[u8; N]> for Reply {
    fn from(output: &[u8; N]) -> Self {
        Self::Output(output.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_output_is_a_reply() {
        let check = |reply: Reply| assert_eq!(reply, Reply::Output(b"ab".to_vec()));
        check(b"ab".to_vec().into());
        check("ab".into());
        check(String::from("ab").into());
        check(b"ab".into());
        check([b'a', b'b'].into());
        check(b"ab"[..].into());
        check(Bytes::from_static(b"ab").into());
        check(Cow::from("ab").into());
        assert_eq!(Reply::from(7), Reply::Output(7));
    }
}

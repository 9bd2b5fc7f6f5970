//! Keys of tasks whose segment is gone, and whose records are kept: the key log.
//!
//! | entry | |
//! | --- | --- |
//! | kind | 1 |
//! | task | position, varint |
//! | record | position in the record log, varint |
//! | hash | of the task's options and payload, 16 bytes |
//! | key | the rest |
//!
//! Before a segment of tasks is removed, its keys are appended here, with the positions of their records. A key is
//! known as long as its record is there, so that nothing has to be written when a record goes: it is known by its
//! position. A segment goes when all of its records have.
//!
//! Keys are not in the record log itself: to find them at a start one would have to read all of it.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Block};
use bytes::{Buf, Bytes};

use crate::parts::{Short, put_varint, take_u8, take_varint};
use crate::task::{KEY_BYTES_MAX, StoredTask, TaskError};

/// Key whose task is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptKey {
    /// Position of the task.
    pub(crate) task: u64,
    /// Position of its record in the record log.
    pub(crate) record: u64,
    pub(crate) hash: PayloadHash,
    pub(crate) key: Bytes,
}

/// Hash of a task's options and payload: two tasks with the same are taken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PayloadHash([u8; 16]);

const KEPT: u8 = 1;

impl KeptKey {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(KEPT);
        put_varint(self.task, out);
        put_varint(self.record, out);
        out.extend(self.hash.0);
        out.extend_from_slice(&self.key);
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, TaskError> {
        if take_u8(&mut bytes)? != KEPT {
            return Err(TaskError::Flags);
        }
        let (task, record) = (take_varint(&mut bytes)?, take_varint(&mut bytes)?);
        let mut hash = [0; 16];
        bytes.try_copy_to_slice(&mut hash).map_err(|_| Short)?;
        if !(1..=KEY_BYTES_MAX).contains(&bytes.len()) {
            return Err(TaskError::Key);
        }
        Ok(Self { task, record, hash: PayloadHash(hash), key: bytes })
    }
}

impl PayloadHash {
    /// Returns the hash of a task in the log with this id, which is a secret: so nobody can make two tasks with
    /// the same. CBC-MAC with the lengths before all else, by AES-128.
    pub(crate) fn of(task: &StoredTask, id: u64) -> Self {
        let options = task.options.encode();
        let lengths = [options.len() as u64, task.payload.len() as u64].map(u64::to_le_bytes);
        let cipher = Aes128Enc::new(
            &[id.to_le_bytes(), *b"payloads"].concat()[..].try_into().expect("16 bytes"),
        );
        let mut state = Block::default();
        for part in [&lengths.concat()[..], &options, &task.payload] {
            for chunk in part.chunks(16) {
                state.iter_mut().zip(chunk).for_each(|(state, byte)| *state ^= byte);
                cipher.encrypt_block(&mut state);
            }
        }
        Self(state.into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::task::TaskOptions;

    fn task(payload: &'static [u8]) -> StoredTask {
        StoredTask { payload: payload.into(), ..StoredTask::default() }
    }

    #[test]
    fn a_kept_key_reads_back_as_it_was_written() {
        let hash = PayloadHash(*b"0123456789abcdef");
        let kept = KeptKey { task: 300, record: 7, hash, key: Bytes::from_static(b"key") };
        let mut out = Vec::new();
        kept.encode(&mut out);
        assert_eq!(out, b"\x01\xac\x02\x070123456789abcdefkey", "the format is documented");
        for end in 0..out.len() - 2 {
            assert!(KeptKey::decode(Bytes::copy_from_slice(&out[..end])).is_err(), "{end}");
        }
        assert_eq!(KeptKey::decode(out.into()), Ok(kept));
        assert_eq!(KeptKey::decode(Bytes::from_static(b"\x02")), Err(TaskError::Flags));
    }

    #[test]
    fn tasks_that_differ_have_different_hashes() {
        let options = |retries, seconds| TaskOptions {
            retries,
            timeout: Some(Duration::from_secs(seconds)),
            ..TaskOptions::default()
        };
        let tasks = [
            task(b""),
            task(b"\0"),
            task(b"a"),
            task(b"a\0"),
            task(b"0123456789abcdef"),
            task(b"0123456789abcdef0123456789abcdeg"),
            task(b"0123456789abcdeg0123456789abcdef"),
            StoredTask { options: options(None, 1), ..task(b"a") },
            StoredTask { options: options(Some(1), 1), ..task(b"a") },
            StoredTask { options: options(Some(1), 2), ..task(b"a") },
        ];
        for (at, one) in tasks.iter().enumerate() {
            assert_eq!(PayloadHash::of(one, 7), PayloadHash::of(one, 7));
            assert_ne!(PayloadHash::of(one, 7), PayloadHash::of(one, 8));
            for other in &tasks[..at] {
                assert_ne!(PayloadHash::of(one, 7), PayloadHash::of(other, 7));
            }
        }
        let keyed = StoredTask { key: Some(Bytes::from_static(b"k")), ..task(b"a") };
        assert_eq!(PayloadHash::of(&keyed, 7), PayloadHash::of(&task(b"a"), 7), "of no key");
        // By openssl.
        let wanted = 0xf79f38a5f134b2632e1dee32c0c47897_u128.to_be_bytes();
        assert_eq!(PayloadHash::of(&task(b"abc"), 7).0, wanted, "the format is documented");
    }
}

//! Tags: proof that the ventilator gave a task to a session.
//!
//! The sink makes a key for a job and tells it to the ventilator alone. Each task travels with a tag, by
//! this key, over the session that it goes to, its seq and its hash; a result brings the tag back. So the
//! sink knows without a list that a result comes from a session that was given the task, and a ventilator
//! that resumes the job knows of a task that a worker claims to hold.
//!
//! A tag is half of one block of AES-128, which processors encrypt in a few nanoseconds. The key of the
//! block is the session's own, made from the job's, so that seq and hash fill it.

use std::fmt;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Block};
use serde::{Deserialize, Serialize};

use crate::{Seq, SessionId, TaskHash};

/// Key of the tags of a job, in one of its stages. A secret of the ventilator and the sink.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobKey([u8; 16]);

/// Proof that a session was given a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag(pub u64);

/// Maker of the tags of one session.
#[derive(Clone)]
pub struct Tagger(Aes128Enc);

/// Maker of the tags of one session under the key of the moment: to make one takes longer than many tags.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptTagger(Option<(JobKey, Tagger)>);

impl KeptTagger {
    /// Returns the maker, for the session that this is always asked for.
    pub(crate) fn get(&mut self, key: JobKey, session: SessionId) -> &Tagger {
        self.0.take_if(|(of, _)| *of != key);
        &self.0.get_or_insert_with(|| (key, key.tagger(session))).1
    }
}

/// Number of blocks that are encrypted together.
const TOGETHER: usize = 32;

/// What a block under the job's key is for: no two of them are the same.
#[derive(Clone, Copy)]
enum Purpose {
    Session = 1,
    StageBefore = 2,
}

impl JobKey {
    /// Creates a key. The bytes are to be random.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Returns the maker of a session's tags.
    #[must_use]
    pub fn tagger(self, session: SessionId) -> Tagger {
        Tagger(Aes128Enc::new(&self.derive(session.0, Purpose::Session).0.into()))
    }

    /// Returns the key of the earlier stage, whose workers' results are this one's tasks.
    #[must_use]
    pub fn stage_before(self) -> Self {
        self.derive(0, Purpose::StageBefore)
    }

    fn derive(self, number: u64, purpose: Purpose) -> Self {
        Self(encrypted(&Aes128Enc::new(&self.0.into()), number, purpose as u64))
    }
}

impl Tagger {
    /// Returns the tag of a task.
    #[must_use]
    #[inline]
    pub fn tag(&self, seq: Seq, hash: TaskHash) -> Tag {
        Tag(u128::from_le_bytes(encrypted(&self.0, seq.0, u64::from(hash.0))) as u64)
    }

    /// Calls a function with each item and the tag of its task. Blocks that are encrypted together take a
    /// part of the time.
    pub fn tag_each<T>(
        &self,
        items: &mut [T],
        task: impl Fn(&T) -> (Seq, TaskHash),
        mut then: impl FnMut(&mut T, Tag),
    ) {
        for items in items.chunks_mut(TOGETHER) {
            let mut blocks = [Block::default(); TOGETHER];
            for (block, item) in blocks.iter_mut().zip(&*items) {
                let (seq, hash) = task(item);
                *block = plain(seq.0, u64::from(hash.0));
            }
            self.0.encrypt_blocks(&mut blocks[..items.len()]);
            for (item, block) in items.iter_mut().zip(blocks) {
                then(item, Tag(u128::from_le_bytes(block.into()) as u64));
            }
        }
    }
}

#[inline]
fn encrypted(cipher: &Aes128Enc, first: u64, second: u64) -> [u8; 16] {
    let mut block = plain(first, second);
    cipher.encrypt_block(&mut block);
    block.into()
}

#[inline]
fn plain(first: u64, second: u64) -> Block {
    (u128::from(first) | u128::from(second) << 64).to_le_bytes().into()
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobKey(..)")
    }
}

impl fmt::Debug for Tagger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tagger(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: JobKey = JobKey::new(*b"a key of 16 byte");

    // Fails if what a tag is over is left out of it.
    #[test]
    fn a_tag_is_of_one_key_session_seq_and_hash() {
        let tag = |key: JobKey, session, seq, hash| {
            key.tagger(SessionId(session)).tag(Seq(seq), TaskHash(hash))
        };
        let ours = tag(KEY, 1, 2, 3);
        assert_eq!(ours, tag(KEY, 1, 2, 3));
        let mut other = *b"a key of 16 byte";
        other[15] ^= 1;
        for other in [
            tag(JobKey::new(other), 1, 2, 3),
            tag(KEY.stage_before(), 1, 2, 3),
            tag(KEY, 2, 2, 3),
            tag(KEY, 1, 3, 3),
            tag(KEY, 1, 2, 4),
        ] {
            assert_ne!(ours, other);
        }
    }

    #[test]
    fn a_tag_keeps_its_value() {
        // A job may be resumed by a later version: workers and journals have tags and keys of this one.
        assert_eq!(
            KEY.tagger(SessionId(7)).tag(Seq(5), TaskHash(70_000)),
            Tag(2132859716269698603)
        );
        let before = [89, 101, 77, 79, 131, 94, 102, 166, 169, 142, 123, 79, 108, 219, 174, 132];
        assert_eq!(KEY.stage_before().to_bytes(), before);
    }

    #[test]
    fn tags_that_are_made_together_are_those_that_are_made_one_by_one() {
        let tagger = KEY.tagger(SessionId(7));
        for count in [0, 1, TOGETHER, 3 * TOGETHER + 5] {
            let mut items: Vec<(u64, Option<Tag>)> = (0..count as u64).map(|n| (n, None)).collect();
            let task = |seq: u64| (Seq(seq), TaskHash(seq as u32 * 3));
            tagger.tag_each(&mut items, |(seq, _)| task(*seq), |item, tag| item.1 = Some(tag));
            for (seq, tag) in items {
                let (seq, hash) = task(seq);
                assert_eq!(tag, Some(tagger.tag(seq, hash)));
            }
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{KEY:?} {:?}", KEY.tagger(SessionId(1))), "JobKey(..) Tagger(..)");
    }
}

//! What users of a metadata store call, written once over the port.

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{self, BoxStream};

use super::{Batch, Entry, MAX_KEY, MetadataStore, Revision};
use crate::error::Result;

/// The least key that is greater than every key starting with `prefix`, as the end of a scan.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // No key is longer than `MAX_KEY`, so none reaches this one.
    vec![u8::MAX; MAX_KEY + 1]
}

/// What every [`MetadataStore`] can do by virtue of being one.
pub trait MetadataStoreExt: MetadataStore {
    /// All records whose keys start with `prefix`, ascending, read in pages of `page` records.
    ///
    /// Each page is one state of the store; between pages others may commit, so a record written
    /// meanwhile may or may not be seen. Memory holds one page. A page of 0 is read as 1.
    fn scan_prefix<'a>(&'a self, prefix: &[u8], page: usize) -> BoxStream<'a, Result<Entry>> {
        Box::pin(flatten(self.scan_pages(prefix, page)))
    }

    /// As [`scan_prefix`](MetadataStoreExt::scan_prefix), a page at a time; no page is empty.
    fn scan_pages<'a>(&'a self, prefix: &[u8], page: usize) -> BoxStream<'a, Result<Vec<Entry>>> {
        let page = page.max(1);
        let end = prefix_end(prefix);
        Box::pin(stream::try_unfold(Some(Bytes::copy_from_slice(prefix)), move |start| {
            let end = end.clone();
            async move {
                let Some(start) = start else { return Ok(None) };
                let entries = self.scan(&start[..]..&end[..], page).await?;
                let next = entries.last().filter(|_| entries.len() == page).map(|last| {
                    // The least key after `last`.
                    let mut next = last.key.to_vec();
                    next.push(0);
                    Bytes::from(next)
                });
                Ok((!entries.is_empty()).then_some((entries, next)))
            }
        }))
    }

    /// Writes one record, whatever was there.
    fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> impl Future<Output = Result<Revision>> + Send {
        let mut batch = Batch::new();
        batch.put(key, value);
        self.commit(batch)
    }
}

impl<S: MetadataStore + ?Sized> MetadataStoreExt for S {}

fn flatten<'a>(pages: BoxStream<'a, Result<Vec<Entry>>>) -> impl Stream<Item = Result<Entry>> + Send + 'a {
    use futures_util::TryStreamExt;
    pages.map_ok(|page| stream::iter(page.into_iter().map(Ok))).try_flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_above_every_key_with_it() {
        assert_eq!(prefix_end(b"a/"), b"a0");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        for prefix in [&b""[..], b"\xff", b"\xff\xff"] {
            assert!(prefix_end(prefix) > vec![u8::MAX; MAX_KEY]);
        }
    }
}

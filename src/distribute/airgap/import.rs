//! The edge's half: volumes in, in any order; receipts out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::super::inbox::PartWriter;
use super::super::receive::Receiver;
use super::super::unpack::Needs;
use super::{FailedBlob, ImportAnswer, ImportedBundle, Receipts, misdirected};
use crate::blob::ByteStream;
use crate::blocking;
use crate::bundle::{Envelope, Statement, TrustDocument};
use crate::delta::pack::volume::{Carried, Found, Volume, VolumeReader};
use crate::delta::pack::{Frame, PartHead, Role};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};

/// How much of a file is read at a time.
const CHUNK: usize = 256 * 1024;

/// What is remembered of a set of which some volumes are here.
#[derive(Default, Serialize, Deserialize)]
struct SetNote {
    done: BTreeSet<u32>,
}

/// A volume on its way in.
struct Import<'a> {
    receiver: &'a Receiver,
    /// The set that the volume has to belong to.
    set: Option<Digest>,
    volume: Option<Volume>,
    bundles: Vec<ImportedBundle>,
    /// What the bundles lack.
    wanted: BTreeMap<Digest, u64>,
    /// What the bundles here need and have, once that is asked for.
    needs: Option<Needs>,
    /// The part under way, if anybody wants it.
    part: Option<(PartHead, PartWriter)>,
    stored: u64,
    failed: Vec<FailedBlob>,
}

impl Receiver {
    /// Takes a volume: its trust document, its bundles, and what it has of the artefacts they lack.
    /// What is whole becomes blobs; bundles of which all blobs are here become visible. With `set`,
    /// a volume of another set is refused.
    ///
    /// A volume may come again, and after it was cut off it should: what was kept of it is not taken
    /// twice.
    ///
    /// # Errors
    /// One sentence that names the volume: [`ErrorKind::Conflict`] if it is for another edge or of
    /// another set, [`ErrorKind::Corrupted`] if it is damaged, [`ErrorKind::Untrusted`] if its trust
    /// document is not accepted, [`ErrorKind::NoSpace`] if the inbox or the disk is full.
    pub async fn import(&self, set: Option<Digest>, mut bytes: ByteStream) -> Result<ImportAnswer> {
        let mut import = Import {
            receiver: self,
            set,
            volume: None,
            bundles: Vec::new(),
            wanted: BTreeMap::new(),
            needs: None,
            part: None,
            stored: 0,
            failed: Vec::new(),
        };
        let mut reader = VolumeReader::new();
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            let mut rest = &chunk[..];
            while let Some(found) = reader.feed(&mut rest)? {
                let taken = import.take(found).await;
                taken.map_err(|error| match reader.volume() {
                    Some(volume) if !error.message().starts_with("volume ") => error.context(volume.place()),
                    _ => error,
                })?;
            }
        }
        reader.finish()?;
        import.finish().await
    }

    /// What this edge proves to hold: the receipts of all bundles of which no blob is missing.
    pub async fn receipts(&self) -> Result<Receipts> {
        let mut receipts = Vec::new();
        for record in self.catalog.bundles().await? {
            let Some(receipt) = self.catalog.receipt(&record.name, &record.version).await? else { continue };
            if !record.holds_blobs
                || !self.missing(&self.statement(&record.name, &record.version).await?).await?.is_empty()
            {
                continue;
            }
            let text = String::from_utf8(receipt.to_vec())
                .map_err(|_| Error::new(ErrorKind::Corrupted, "a stored receipt is not UTF-8"))?;
            receipts.push(text);
        }
        Ok(Receipts {
            edge: self.name().clone(),
            tenant: self.catalog.tenant().clone(),
            identity: self.identity().public_key(),
            at: self.now(),
            receipts,
        })
    }
}

impl Import<'_> {
    async fn take(&mut self, found: Found) -> Result<()> {
        match found {
            Found::Volume(volume) => self.begin(volume),
            Found::Document(Role::Trust, bytes) => self.trust(bytes).await,
            Found::Document(_, bytes) => self.offer(bytes).await,
            Found::Head(head) => self.head(head).await,
            Found::Frame(frame) => self.frame(frame).await,
            Found::PartEnd => self.part_end().await,
            Found::End => Ok(()),
        }
    }

    fn begin(&mut self, volume: Volume) -> Result<()> {
        let receiver = self.receiver;
        if volume.edge != *receiver.name() {
            let message = format!("is for the edge {}, and this is {}", volume.edge, receiver.name());
            return Err(misdirected(&volume, message));
        }
        if volume.tenant != *receiver.catalog.tenant() {
            return Err(misdirected(
                &volume,
                format!("is for the tenant {}, which is not here", volume.tenant),
            ));
        }
        if self.set.is_some_and(|set| set != volume.set) {
            return Err(misdirected(&volume, "belongs to another set than the volume before"));
        }
        self.volume = Some(volume);
        Ok(())
    }

    async fn trust(&self, envelope: Bytes) -> Result<()> {
        // Volumes may lie for a while; a newer document that came meanwhile stays in force.
        let version = TrustDocument::parse_unverified(&envelope)?.version;
        if self.receiver.trust().await?.is_some_and(|trust| trust.version > version) {
            return Ok(());
        }
        self.receiver.accept_trust(envelope).await.map(drop)
    }

    async fn offer(&mut self, envelope: Bytes) -> Result<()> {
        let Some(carried) = self.volume.as_ref().and_then(|volume| volume.bundles.get(self.bundles.len()))
        else {
            return Err(Error::invalid("there are more bundles in it than it says"));
        };
        let Carried { name, version, .. } = carried.clone();
        let offered = self.receiver.offer(&envelope).await;
        let bundle = match offered {
            Ok(answer) => {
                let held = Statement::parse(&Envelope::parse(&envelope)?.payload)?;
                if held.bundle().name != name || held.bundle().version != version {
                    return Err(Error::invalid(format!(
                        "what it calls {name} {version} is {}",
                        held.bundle()
                    )));
                }
                self.wanted.extend(answer.want.iter().map(|want| (want.digest, want.size)));
                ImportedBundle {
                    name,
                    version,
                    state: answer.state,
                    missing: answer.want.len() as u64,
                    why: None,
                }
            }
            Err(error) if error.kind().is_retryable() => return Err(error),
            // The others of the set may be in order.
            Err(error) => {
                let why = Some(error.to_string());
                ImportedBundle { name, version, state: "refused".into(), missing: 0, why }
            }
        };
        self.bundles.push(bundle);
        Ok(())
    }

    async fn head(&mut self, head: PartHead) -> Result<()> {
        if self.wanted.get(&head.target.digest) != Some(&head.target.size) {
            return Ok(());
        }
        let needs = match &mut self.needs {
            Some(needs) => needs,
            none => none.insert(self.receiver.needs().await?),
        };
        match self.receiver.admit(needs, &head).await {
            Ok(Some(writer)) => self.part = Some((head, writer)),
            Ok(None) => {
                let message = format!("{} is being received from elsewhere; try again", head.target.digest);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            Err(error) if error.kind().is_retryable() => return Err(error),
            Err(error) => self.fail(&head, &error),
        }
        Ok(())
    }

    async fn frame(&mut self, frame: Frame) -> Result<()> {
        let Some((head, mut writer)) = self.part.take() else { return Ok(()) };
        let kept = blocking::run(move || {
            writer.frame(&frame)?;
            Ok(writer)
        });
        self.part = Some((head, kept.await?));
        Ok(())
    }

    /// Makes a blob of an artefact that is whole.
    async fn part_end(&mut self) -> Result<()> {
        let Some((head, writer)) = self.part.take() else { return Ok(()) };
        if !self.receiver.is_complete(&head.section).await? {
            // The rest is in another volume, which may come days later.
            return blocking::run(move || writer.sync()).await;
        }
        drop(writer);
        match self.receiver.make_now(&head).await {
            Ok(()) => {
                self.wanted.remove(&head.target.digest);
                self.stored += 1;
            }
            Err(error) if error.kind().is_retryable() && error.kind() != ErrorKind::Corrupted => {
                return Err(error);
            }
            Err(error) => self.fail(&head, &error),
        }
        Ok(())
    }

    fn fail(&mut self, head: &PartHead, error: &Error) {
        tracing::warn!(digest = %head.target.digest, %error, "an artefact of a volume makes no blob");
        self.failed.push(FailedBlob { digest: head.target.digest, why: error.to_string() });
    }

    /// Commits what is complete, and notes that the volume was here.
    async fn finish(mut self) -> Result<ImportAnswer> {
        let Some(volume) = self.volume.take() else {
            return Err(Error::new(
                ErrorKind::Internal,
                "a volume was read to its end without a description",
            ));
        };
        for bundle in self.bundles.iter_mut().filter(|bundle| bundle.state != "refused") {
            let statement = self.receiver.statement(&bundle.name, &bundle.version).await?;
            bundle.missing = self.receiver.missing(&statement).await?.len() as u64;
            if bundle.missing > 0 {
                continue;
            }
            match self.receiver.commit(&bundle.name, &bundle.version).await {
                Ok(_) => bundle.state = "committed".into(),
                Err(error) if error.kind().is_retryable() => return Err(error),
                Err(error) => (bundle.state, bundle.why) = ("refused".into(), Some(error.to_string())),
            }
        }
        let open = self.bundles.iter().any(|bundle| bundle.state == "prepared");
        let missing = self.note(&volume, open).await?;
        let receipts = if missing.is_empty() { Some(self.receiver.receipts().await?) } else { None };
        Ok(ImportAnswer {
            set: volume.set,
            number: volume.number,
            count: volume.count,
            missing,
            stored: self.stored,
            failed: self.failed,
            bundles: self.bundles,
            receipts,
        })
    }

    /// Notes the volume; answers which are still to come.
    async fn note(&self, volume: &Volume, open: bool) -> Result<Vec<u32>> {
        let (inbox, set, number, count) =
            (self.receiver.unpacking.inbox.clone(), volume.set, volume.number, volume.count);
        let failed = !self.failed.is_empty();
        blocking::run(move || {
            inbox.note(&set, |before| {
                // One that cannot be read is begun anew: then volumes are asked for once more.
                let mut note: SetNote =
                    before.and_then(|before| serde_json::from_slice(&before).ok()).unwrap_or_default();
                note.done.insert(number);
                if !open {
                    return Ok((None, Vec::new()));
                }
                let missing: Vec<u32> = (1..=count).filter(|number| !note.done.contains(number)).collect();
                // What some volume brought was lost since: nobody knows which.
                if missing.is_empty() && !failed {
                    return Ok((None, (1..=count).filter(|other| *other != number).collect()));
                }
                let text = serde_json::to_vec(&note).map_err(|cause| {
                    Error::new(ErrorKind::Internal, format!("a note cannot be written: {cause}"))
                })?;
                Ok((Some(text), missing))
            })
        })
        .await
    }
}

/// The bytes of a file, such as a volume.
///
/// # Errors
/// If it cannot be opened; reading it may fail later.
pub fn file_bytes(path: impl Into<PathBuf>) -> Result<ByteStream> {
    let path = path.into();
    let file =
        File::open(&path).map_err(|cause| Error::io(format_args!("reading {}", path.display()), cause))?;
    Ok(Box::pin(stream::try_unfold((file, path), |(mut file, path)| {
        blocking::run(move || {
            let mut bytes = vec![0; CHUNK];
            let read = loop {
                match file.read(&mut bytes) {
                    Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            let read = read.map_err(|cause| Error::io(format_args!("reading {}", path.display()), cause))?;
            bytes.truncate(read);
            Ok((read > 0).then(|| (Bytes::from(bytes), (file, path))))
        })
    })))
}

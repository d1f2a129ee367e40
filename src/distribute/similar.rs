//! Which of the artifacts a peer has a new artifact is most like: by name, and at last by size.
//!
//! Two releases of one thing have paths that differ in their version numbers. So paths are compared
//! with what looks like a version taken out of them.

use std::collections::BTreeMap;

use crate::blob::{BlobStore, BlobStoreExt as _};
use crate::bundle::{BundleRef, Statement};
use crate::digest::Digest;
use crate::name::BundleName;

/// Most bases that one artifact is given.
pub(super) const MAX_BASES: usize = 2;
/// Most bundles that are looked through.
pub(super) const MAX_BUNDLES: usize = 16;
/// What stands for a version.
const PLACE: char = '#';
/// Words that belong to the version they follow.
const STAGES: &[&str] =
    &["a", "alpha", "b", "beta", "c", "dev", "final", "ga", "m", "post", "pre", "preview", "rc", "snapshot"];

/// An artifact that may serve as a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// `repository/path`.
    pub(super) name: String,
}

/// The artifacts a peer has, by what they are called.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// With the place of their bundle among the bundles.
    held: Vec<(usize, Candidate)>,
    bundles: usize,
    by_name: BTreeMap<String, Vec<usize>>,
    by_file: BTreeMap<String, Vec<usize>>,
    by_kind: BTreeMap<String, Vec<usize>>,
}

impl Shelf {
    /// Puts the artifacts of a bundle on the shelf, behind those of the bundles that came before:
    /// the likeliest bundle comes first.
    pub(super) fn add(&mut self, statement: &Statement, roles: &Roles) {
        self.bundles += 1;
        for item in statement.items() {
            let name = item.name();
            self.put(Candidate { digest: item.digest, size: item.size, name: name.clone() }, &name);
            for role in roles.of(&item.digest) {
                self.put(Candidate { digest: item.digest, size: item.size, name: name.clone() }, role);
            }
        }
    }

    /// Puts one artifact on the shelf, under its own name or another.
    pub(super) fn put(&mut self, candidate: Candidate, name: &str) {
        let at = self.held.len();
        let plain = without_versions(name);
        let file = file_name(&plain).to_owned();
        self.by_kind.entry(extension(&file).to_owned()).or_default().push(at);
        self.by_file.entry(file).or_default().push(at);
        self.by_name.entry(plain).or_default().push(at);
        self.held.push((self.bundles, candidate));
    }

    /// What resembles an artifact called `names` (its own name, and its roles) most, best first. A
    /// path that only differs in its version is certain, and comes alone.
    pub(super) fn choose(&self, names: &[&str], digest: &Digest, size: u64) -> Vec<Candidate> {
        let mut chosen: Vec<Candidate> = Vec::new();
        let Some(own) = names.first() else { return chosen };
        // A role says more than a path: a layer's path is but its digest.
        for name in names.iter().rev() {
            let plain = without_versions(name);
            // Paths made of digests alone are all alike.
            if !is_digest_alone(&plain)
                && let Some(found) =
                    self.best(self.by_name.get(&plain), By::Name(name), digest, size, &chosen)
            {
                return vec![found];
            }
        }
        let plain = without_versions(own);
        let file = file_name(&plain);
        if !is_digest_alone(file)
            && let Some(found) = self.best(self.by_file.get(file), By::Name(own), digest, size, &chosen)
        {
            chosen.push(found);
        }
        let kind = self.by_kind.get(extension(file));
        if !extension(file).is_empty() || is_digest_alone(file) {
            while chosen.len() < MAX_BASES {
                let near = kind.into_iter().flatten().copied();
                let near: Vec<usize> = near.filter(|at| is_near(self.size(*at), size)).collect();
                match self.best(Some(&near), By::Size, digest, size, &chosen) {
                    Some(found) => chosen.push(found),
                    None => break,
                }
            }
        }
        chosen
    }

    fn size(&self, at: usize) -> u64 {
        self.held.get(at).map_or(0, |(_, held)| held.size)
    }

    /// The likeliest of `among`: of the first bundle that has some, the one that is nearest by name
    /// and size, or by size alone.
    fn best(
        &self,
        among: Option<&Vec<usize>>,
        by: By<'_>,
        digest: &Digest,
        size: u64,
        taken: &[Candidate],
    ) -> Option<Candidate> {
        let fits = |held: &&(usize, Candidate)| {
            let (_, held) = held;
            held.digest != *digest && held.size > 0 && !taken.iter().any(|one| one.digest == held.digest)
        };
        let fitting = among?.iter().filter_map(|at| self.held.get(*at)).filter(fits);
        let distance = |(bundle, held): &(usize, Candidate)| {
            let alike = match by {
                By::Name(name) => common(&held.name, name),
                By::Size => 0,
            };
            (*bundle, std::cmp::Reverse(alike), held.size.abs_diff(size))
        };
        fitting.min_by_key(|held| distance(held)).map(|(_, held)| held.clone())
    }
}

#[derive(Clone, Copy)]
enum By<'a> {
    Name(&'a str),
    Size,
}

/// What blobs are to an image, by the manifests that name them.
#[derive(Debug, Default)]
pub(super) struct Roles(BTreeMap<Digest, Vec<String>>);

/// Image manifests that are read of one bundle.
const MANIFESTS: usize = 256;

impl Roles {
    /// Reads the image manifests of a bundle. One that cannot be read says nothing.
    pub(super) async fn read_all(&mut self, blobs: &dyn BlobStore, statement: &Statement) {
        let manifests = statement
            .items()
            .iter()
            .filter(|item| may_be_manifest(&item.name(), item.media_type.as_deref(), item.size));
        for item in manifests.take(MANIFESTS) {
            if let Ok(Some(bytes)) = blobs.read(&item.digest, item.size).await {
                self.read(&item.name(), &bytes);
            }
        }
    }

    /// Reads an OCI image manifest that lies at `name`; anything else says nothing.
    fn read(&mut self, name: &str, manifest: &[u8]) {
        #[derive(serde::Deserialize)]
        struct Descriptor {
            digest: String,
        }
        #[derive(serde::Deserialize)]
        struct Manifest {
            config: Option<Descriptor>,
            #[serde(default)]
            layers: Vec<Descriptor>,
        }
        let Ok(manifest) = serde_json::from_slice::<Manifest>(manifest) else { return };
        let config = manifest.config.into_iter().map(|config| (config, "config".to_owned()));
        let layers = manifest.layers.into_iter().enumerate();
        let layers = layers.map(|(at, layer)| (layer, format!("layer {}", letters(at))));
        // Manifests lie under a tag or their digest: the image is the folder.
        let image = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (blob, role) in config.chain(layers) {
            if let Ok(digest) = blob.digest.parse::<Digest>() {
                self.0.entry(digest).or_default().push(format!("{image}!{role}"));
            }
        }
    }

    pub(super) fn of(&self, digest: &Digest) -> impl Iterator<Item = &str> {
        self.0.get(digest).into_iter().flatten().map(String::as_str)
    }
}

/// Whether an artifact may be an image manifest, and is worth reading.
fn may_be_manifest(name: &str, media_type: Option<&str>, size: u64) -> bool {
    let named = name.contains("/manifests/") || name.ends_with("/manifest.json");
    size <= 1 << 20 && (named || media_type.is_some_and(|kind| kind.contains("manifest")))
}

/// The order in which bundles are looked through for bases of `wanted`: older versions of the same
/// name, the newest first; then its newer ones, then other bundles, as `others` ranks them.
pub(super) fn likelihood(wanted: &BundleRef, name: &BundleName, seq: u64, others: i64) -> (u8, i64) {
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    let own = i64::try_from(wanted.seq).unwrap_or(i64::MAX);
    match *name == wanted.name {
        true if seq < own => (0, -seq),
        true => (1, seq),
        false => (2, -others),
    }
}

/// `path` with what looks like versions replaced by a placeholder.
pub(super) fn without_versions(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if word == 0 {
            plain.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (token, after) = rest.split_at(word);
        rest = after;
        let lower = token.to_ascii_lowercase();
        // `1.2.3`, `1.2-rc1`, `1~bpo12`, `1+deb12u1` are one version.
        let joined = plain.len() >= 2
            && plain.ends_with(['.', '-', '_', '+', '~'])
            && plain[..plain.len() - 1].ends_with(PLACE);
        let build = joined && plain.ends_with(['+', '~']);
        let stage = joined && STAGES.contains(&lower.trim_end_matches(|c: char| c.is_ascii_digit()));
        if build || stage || is_version(&lower) {
            if joined {
                plain.pop();
            } else {
                plain.push(PLACE);
            }
        } else {
            plain.push_str(token);
        }
    }
    plain
}

/// Whether a word of letters and digits says which version it is: a number, or a digest.
fn is_version(word: &str) -> bool {
    let number = word.strip_prefix('v').unwrap_or(word);
    let hex = word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    number.starts_with(|c: char| c.is_ascii_digit()) || hex && word.bytes().any(|byte| byte.is_ascii_digit())
}

fn is_digest_alone(plain: &str) -> bool {
    let file = file_name(plain);
    file.chars().all(|c| c == PLACE) || file == "sha256:#"
}

/// A number as letters, which no version is made of.
fn letters(number: usize) -> String {
    number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn extension(file: &str) -> &str {
    file.rsplit_once('.').map_or("", |(_, extension)| extension)
}

fn is_near(size: u64, other: u64) -> bool {
    size / 2 <= other && other / 2 <= size
}

/// How many bytes two names have in common at both ends.
fn common(one: &str, other: &str) -> usize {
    let equal = |(a, b): &(u8, u8)| a == b;
    let front = one.bytes().zip(other.bytes()).take_while(equal).count();
    let left = one.len().min(other.len()) - front;
    let back = one.bytes().rev().zip(other.bytes().rev()).take(left).take_while(equal).count();
    front + back
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(names: &[(&str, u64)]) -> Shelf {
        let mut shelf = Shelf::default();
        for (name, size) in names {
            let digest = Digest::of(format!("{name} {size}").as_bytes());
            shelf.put(Candidate { digest, size: *size, name: (*name).to_owned() }, name);
        }
        shelf
    }

    fn chosen(shelf: &Shelf, name: &str, size: u64) -> Vec<String> {
        let found = shelf.choose(&[name], &Digest::of(b"wanted"), size);
        found.into_iter().map(|candidate| candidate.name).collect()
    }

    #[test]
    fn versions_in_paths_are_placeholders() {
        for (path, plain) in [
            ("npm/typescript/-/typescript-5.4.2.tgz", "npm/typescript/-/typescript-#.tgz"),
            ("npm/@esbuild/linux-x64/-/linux-x64-0.20.1.tgz", "npm/@esbuild/linux-x64/-/linux-x64-#.tgz"),
            ("crates/aws-sdk-ec2/1.20.0/download", "crates/aws-sdk-ec2/#/download"),
            ("crates/aws-lc-sys-0.21.2.crate", "crates/aws-lc-sys-#.crate"),
            ("pypi/numpy-2.1.0rc1-cp312-cp312-linux.whl", "pypi/numpy-#-cp312-cp312-linux.whl"),
            ("deb/pool/f/foo_1.2.3-4ubuntu1~22.04_amd64.deb", "deb/pool/f/foo_#_amd64.deb"),
            ("deb/libfoo_5.1+deb12u1_arm64.deb", "deb/libfoo_#_arm64.deb"),
            ("maven/com/g/guava/33.0.0-jre/guava-33.0.0-jre.jar", "maven/com/g/guava/#-jre/guava-#-jre.jar"),
            ("maven/a/2.0-SNAPSHOT/a-2.0-20240101.101010-3.jar", "maven/a/#/a-#.jar"),
            ("go/mod/@v/v1.2.3-beta.1.zip", "go/mod/@v/#.zip"),
            ("web/main.3f2a9c1b.js", "web/main.#.js"),
            ("generic/shop/1.0/LICENSE", "generic/shop/#/LICENSE"),
            ("generic/café/x", "generic/café/x"),
        ] {
            assert_eq!(without_versions(path), plain);
        }
    }

    #[test]
    fn the_same_path_of_another_version_is_certain() {
        let shelf = shelf(&[
            ("npm/ts/-/ts-5.4.2.tgz", 500),
            ("npm/ts/-/ts-5.4.2.tgz.asc", 500),
            ("npm/other/-/ts-5.4.2.tgz", 500),
        ]);
        assert_eq!(chosen(&shelf, "npm/ts/-/ts-5.4.3.tgz", 500), ["npm/ts/-/ts-5.4.2.tgz"]);
        assert_eq!(
            chosen(&shelf, "npm/new/ts-6.0.tgz", 500).len(),
            2,
            "one by its file's name, one by its size"
        );
    }

    #[test]
    fn the_earlier_bundle_comes_first_and_the_nearer_name_wins() {
        let found = shelf(&[("f/app-1.2.bin", 10), ("f/app-1.1.bin", 10)]);
        assert_eq!(chosen(&found, "f/app-2.0.bin", 10), ["f/app-1.2.bin"]);
        let wheels =
            shelf(&[("p/np-1.0-x86_32.whl", 90), ("p/np-1.0-x86_64.whl", 10), ("p/np-1.0-arm64.whl", 90)]);
        assert_eq!(chosen(&wheels, "p/np-1.1-x86_64.whl", 90), ["p/np-1.0-x86_64.whl"]);
    }

    #[test]
    fn other_kinds_and_other_sizes_are_no_bases() {
        let shelf =
            shelf(&[("f/a.jar", 1000), ("f/b.txt", 1000), ("f/huge.jar", 100_000), ("f/none.jar", 0)]);
        assert_eq!(chosen(&shelf, "f/c.jar", 1200), ["f/a.jar"]);
        assert_eq!(chosen(&shelf, "f/c.tar", 1000), Vec::<String>::new());
        assert_eq!(chosen(&shelf, "f/README", 1000), Vec::<String>::new());
    }

    #[test]
    fn layers_are_told_by_their_place_in_the_manifest() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let manifest = |config: &str, layers: [&str; 2]| {
            let blob = |text: &str| serde_json::json!({"digest": digest(text).to_string(), "size": 1});
            serde_json::json!({"config": blob(config), "layers": layers.map(blob)}).to_string()
        };
        let path = |text: &str| format!("oci/app/blobs/sha256:{}", digest(text).to_hex());
        let mut roles = Roles::default();
        roles.read("oci/app/manifests/1.0", manifest("c1", ["base", "old"]).as_bytes());
        roles.read("oci/app/manifests/bad", b"{\"layers\": 7}");
        let mut shelf = Shelf::default();
        for (text, size) in [("c1", 100), ("base", 5000), ("old", 6000), ("stray", 6001)] {
            let held = Candidate { digest: digest(text), size, name: path(text) };
            shelf.put(held.clone(), &path(text));
            for role in roles.of(&digest(text)) {
                shelf.put(held.clone(), role);
            }
        }
        roles.read("oci/app/manifests/1.1", manifest("c2", ["base", "new"]).as_bytes());
        let own = path("new");
        let mut names = vec![own.as_str()];
        let wanted = digest("new");
        names.extend(roles.of(&wanted));
        let found = shelf.choose(&names, &wanted, 6001);
        assert_eq!(found.iter().map(|one| one.digest).collect::<Vec<_>>(), [digest("old")]);
        // Without a manifest the nearest size is the best guess.
        let found = shelf.choose(&[own.as_str()], &wanted, 6001);
        assert_eq!(found[0].digest, digest("stray"));
    }
}

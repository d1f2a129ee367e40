//! The power fails: what the disk holds is what was written back, no more.

use std::path::PathBuf;
use std::process::Command;

use super::{Machine, programme, setting};
use crate::process::EdgeProcess;

/// An ext4 file system in a file. At the cut the edge is frozen, the file is copied as it is, and
/// life goes on with the copy: what was in the page cache alone is lost.
struct Disk {
    dir: PathBuf,
    mounted: bool,
}

impl Disk {
    fn mount(&mut self) {
        // Without `noauto_da_alloc` ext4 repairs some missing syncs by itself.
        let options = "loop,noauto_da_alloc,nodev,nosuid";
        command("mount", &["-o", options, "disk.img", "disk"], &self.dir);
        self.mounted = true;
    }

    fn unmount(&mut self) {
        command("umount", &["disk"], &self.dir);
        self.mounted = false;
    }
}

impl Machine for Disk {
    fn data(&self) -> PathBuf {
        self.dir.join("disk/data")
    }

    fn cut(&mut self, edge: EdgeProcess) {
        edge.freeze();
        command("cp", &["--sparse=always", "disk.img", "after.img"], &self.dir);
        edge.kill();
        self.unmount();
        command("mv", &["after.img", "disk.img"], &self.dir);
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // The script that made the directory looks after what is left.
            let _ = Command::new("umount").args(["-l", "disk"]).current_dir(&self.dir).status();
        }
    }
}

fn command(program: &str, arguments: &[&str], dir: &PathBuf) {
    let output = Command::new(program).args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs root and loop mounts: scripts/power-cut runs it"]
fn what_was_acknowledged_survives_a_power_cut() {
    let dir =
        std::env::var("DISTEDGE_POWER_CUT").expect("a directory with disk.img, an ext4 image, and disk");
    let mut disk = Disk { dir: dir.into(), mounted: false };
    disk.mount();
    let log = disk.dir.join("log");
    programme("power cut", &mut disk, &log, setting("DISTEDGE_POWER_CYCLES", 20));
}

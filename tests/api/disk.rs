//! Disks that are full, read-only or failing.

use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use tempfile::TempDir;

use crate::process::{
    Process, free_address, preload_library, run, stdout, usher, wait_for, write_config,
};

/// A separate file system for the database; only root can mount one.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "usher-test"])
            .arg(dir.path())
            .output()
            .ok()?;
        mount.status.success().then(|| Self(dir))
    }

    fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        let done = Command::new("mount")
            .args(["-o", &option])
            .arg(self.0.path())
            .status();
        assert!(done.unwrap().success(), "{option}");
    }

    fn fill(&self) {
        let _ = std::fs::write(self.0.path().join("ballast"), vec![0; 2 << 20]);
    }

    fn free(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn full_disk_is_a_503_until_space_is_free() {
    let Some(disk) = Disk::mount() else {
        println!("skipped: only root can mount a disk to fill");
        return;
    };
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &disk.0.path().join("usher.db"));
    assert_eq!(process.open("before").0, StatusCode::CREATED);
    disk.fill();
    let mut refused = 0;
    // SQLite's log has some free space at first.
    for n in 0..200 {
        let (status, body) = process.open(&format!("full{n}"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            assert!(body["message"].is_string(), "{body}");
            refused += 1;
        } else {
            assert_eq!(status, StatusCode::CREATED);
            assert_eq!(refused, 0, "a write succeeded while the disk was full");
        }
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3);
    assert_eq!(process.get("/health").0, StatusCode::OK);
    for path in ["/ready", "/about/health"] {
        let (status, body) = process.get(path);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["reasons"][0]["check"], "store", "{body}");
        assert!(body["message"].as_str().unwrap().contains("disk"), "{body}");
    }
    disk.free();
    assert_eq!(process.open("after").0, StatusCode::CREATED);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(process.get("/ready").0, StatusCode::OK);
    drop(process);
}

#[test]
fn full_disk_makes_no_booking_seem_to_be_missing() {
    let Some(disk) = Disk::mount() else {
        println!("skipped: only root can mount a disk to fill");
        return;
    };
    let dir = TempDir::new().unwrap();
    let process = Process::start(dir.path(), &disk.0.path().join("usher.db"));
    let post = |room: usize| {
        let body = json!({ "room": format!("room{room}"), "title": "t".repeat(200) });
        process.post_json("/api/v1/bookings", &body)
    };
    let ids: Vec<_> = (0..20).map(|room| post(room).1["id"].clone()).collect();
    disk.fill();
    // SQLite's log has some free space at first.
    let mut more = 1000..1200;
    let is_full = more.any(|room| post(room).0 == StatusCode::SERVICE_UNAVAILABLE);
    assert!(is_full);
    for four in ids.chunks(4).cycle().take(20) {
        std::thread::scope(|scope| {
            for id in four {
                let process = &process;
                scope.spawn(move || {
                    let status = process.delete(&format!("/api/v1/bookings/{id}"));
                    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{id}");
                });
            }
        });
    }
    disk.free();
    for id in ids {
        let (status, booking) = process.get(&format!("/api/v1/bookings/{id}"));
        assert_eq!((status, &booking["id"]), (StatusCode::OK, &id));
    }
}

#[test]
fn failing_disk_is_a_503_until_it_recovers() {
    for fault in ["READ_ONLY_FLAG", "FULL_FLAG"] {
        let dir = TempDir::new().unwrap();
        let flag = dir.path().join("flag");
        // The disk becomes read-only or full under a running process: writes fail while the flag exists.
        let library = preload_library(dir.path(), "failing_disk.c");
        let address = free_address();
        write_config(dir.path(), address, &dir.path().join("usher.db"));
        let child = usher(dir.path())
            .env("LD_PRELOAD", library)
            .env(fault, &flag)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process::running(child, address);
        let (_, made) = process.open("before");
        std::fs::write(&flag, "").unwrap();
        for n in 0..3 {
            let (status, body) = process.open(&format!("during{n}"));
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{fault}: {body}");
            assert!(body["message"].is_string());
        }
        // Existing conferences can still be read.
        assert_eq!(
            process.get(&format!("/conference/{}", made["id"])).0,
            StatusCode::OK
        );
        assert_eq!(process.get("/health").0, StatusCode::OK);
        let (status, body) = process.get("/ready");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["reasons"][0]["check"], "store", "{body}");
        std::fs::remove_file(&flag).unwrap();
        assert_eq!(process.open("after").0, StatusCode::CREATED);
        assert_eq!(process.open("during0").0, StatusCode::CREATED);
        wait_for("readiness", || process.get("/ready").0 == StatusCode::OK);
    }
}

#[test]
fn check_reports_a_database_on_a_read_only_disk() {
    let Some(disk) = Disk::mount() else {
        println!("skipped: only root can mount a disk to make read-only");
        return;
    };
    let dir = TempDir::new().unwrap();
    let database = disk.0.path().join("usher.db");
    drop(Process::start(dir.path(), &database));
    disk.remount("ro");
    let checked = run(dir.path(), &["check"]);
    assert_eq!(checked.status.code(), Some(1));
    let report = stdout(&checked);
    assert!(report.contains("FAILED  database"), "{report}");
    assert!(report.contains(&database.display().to_string()), "{report}");
}

//! What is handed out: installed into a root of its own, run as the service under all that its unit says, removed without trace.
//!
//! `NITRO_DIST` names what `cargo xtask dist` made; without it, it is put together from the agent under test, which is what differs from it: linked with the system's
//! C library.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output},
};

use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::{scratch::ScratchDir, sweep};
use serde_json::Value;

use super::{
    bed::{Bed, MIB, SOON, binary, cool, resident_all, scenario, until},
    rights::{assert_few, private},
};

/// Where the service manager listens, and where the models and what is installed are, in the root.
const NOTIFY: &str = "/run/notify";
const MODELS: &str = "/srv/models";
const DIST: &str = "/mnt";

/// What is the tools' own: dpkg's records and its log, the index that man-db keeps of all pages, a mark of systemd-analyze's.
const BOOKS: [&str; 4] = [
    "var/lib/dpkg",
    "var/log/dpkg.log",
    "var/cache/man",
    "run/systemd/systemd-units-load",
];

/// Where systemd keeps the state of services without a user of their own. It makes it and leaves it.
const MANAGERS: &str = "var/lib/private";

/// A root that is this machine's, and where all that is written goes elsewhere.
struct Root {
    scratch: ScratchDir,
    unmount: Vec<PathBuf>,
}

impl Root {
    fn new(dist: &Path, models: &Path) -> Self {
        // Not below the root that it shows.
        let scratch = ScratchDir::new(Path::new("/dev/shm")).unwrap();
        let mut root = Self {
            scratch,
            unmount: Vec::new(),
        };
        let path = |name: &str| root.scratch.path().join(name);
        for folder in ["upper", "work", "root"] {
            fs::create_dir(path(folder)).unwrap();
        }
        fs::set_permissions(root.scratch.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let upper = format!(
            "lowerdir=/,upperdir={},workdir={}",
            path("upper").display(),
            path("work").display()
        );
        let top = path("root");
        mount(
            Some("overlay"),
            &top,
            Some("overlay"),
            MsFlags::empty(),
            Some(upper.as_str()),
        )
        .unwrap();
        root.unmount.push(top.clone());
        // What an agent that was started by hand has left on this machine is no part of it.
        let by_hand = top.join("var/lib/nitro-agent");
        if by_hand.exists() {
            fs::remove_dir_all(by_hand).unwrap();
        }
        fs::create_dir_all(top.join(&MODELS[1..])).unwrap();
        for (from, on) in [
            (Path::new("/proc"), "/proc"),
            (Path::new("/sys"), "/sys"),
            (Path::new("/dev"), "/dev"),
            (dist, DIST),
            (models, MODELS),
        ] {
            let on = top.join(&on[1..]);
            mount(Some(from), &on, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            root.unmount.push(on);
        }
        root
    }

    fn path(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    /// Runs a command there, which must succeed.
    fn run(&self, command: &[&str]) -> String {
        let output = self.output(command);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}{error}");
        said
    }

    fn output(&self, command: &[&str]) -> Output {
        let mut chroot = Command::new("chroot");
        chroot.arg(self.path()).args(command).env_remove("DESTDIR");
        chroot.output().unwrap()
    }

    /// What was written that is not there on the machine, changed there, or removed: by its path.
    fn written(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        walk(&self.scratch.path().join("upper"), Path::new(""), &mut found);
        found
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for point in self.unmount.iter().rev() {
            sweep::unmount(point);
        }
    }
}

/// A directory that is there below as well is no trace, however it came to be copied up.
fn walk(upper: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(upper.join(below)).unwrap().flatten() {
        let path = below.join(entry.file_name());
        if BOOKS.iter().any(|book| path.starts_with(book)) {
            continue;
        }
        let kind = entry.file_type().unwrap();
        let there = Path::new("/").join(&path);
        if !kind.is_dir() {
            let what = if kind.is_char_device() { "removed" } else { "written" };
            found.insert(PathBuf::from(format!("{} ({what})", path.display())));
            continue;
        }
        if !there.is_dir() && path != Path::new(MANAGERS) {
            found.insert(path.clone());
        } else if there.is_dir() {
            let of = |file: &Path| {
                fs::metadata(file)
                    .map(|found| (found.mode(), found.uid(), found.gid()))
                    .unwrap()
            };
            assert_eq!(of(&upper.join(&path)), of(&there), "{}", there.display());
        }
        walk(upper, &path, found);
    }
}

/// What is handed out, and what must stay until the test has ended.
fn dist() -> (PathBuf, Option<ScratchDir>) {
    if let Some(made) = std::env::var_os("NITRO_DIST") {
        return (made.into(), None);
    }
    let scratch = ScratchDir::new(Path::new("/var/tmp")).unwrap();
    let out = scratch.path().join("dist");
    let made = Command::new(beside("nitro-dist"))
        .arg("--agent")
        .arg(binary())
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o755)).unwrap();
    (out, Some(scratch))
}

/// A binary that cargo built beside the agent: `cargo xtask test` does.
fn beside(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let mut above = test.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let built = above.find(|path| path.exists());
    built.unwrap_or_else(|| panic!("no {name}: `cargo build --release --workspace --bins`"))
}

/// The service, ended with the test.
struct Service(Child);

impl Service {
    fn start(root: &Root, unit: &str) -> Self {
        let child = Command::new(beside("nitro-unit"))
            .arg(root.path())
            .args([unit, NOTIFY])
            .spawn()
            .unwrap();
        sweep::adopt(child.id());
        Self(child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
        sweep::disown(self.0.id());
    }
}

/// Runs the service of `unit` until it has helped a reader, and stops it.
fn serves(bed: &Bed, root: &Root, unit: &str, weights: &Path) {
    cool(weights);
    let socket = root.path().join(&NOTIFY[1..]);
    let notify = UnixDatagram::bind(&socket).unwrap();
    fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
    notify.set_read_timeout(Some(SOON)).unwrap();
    let said = || {
        let mut buffer = [0; 256];
        let length = notify.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    // What systemd itself says of it: nothing.
    let verified = root.output(&["systemd-analyze", "verify", "--man=no", unit]);
    let said_of_it = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said_of_it.is_empty(), "{said_of_it}");
    let mut service = Service::start(root, unit);
    assert_eq!(said(), "READY=1");
    let pid = service.0.id();
    assert_few(pid);
    let user = fs::metadata(format!("/proc/{pid}/task")).unwrap().uid();
    assert!((61_184..65_520).contains(&user), "{user}");

    let prefix = if unit.starts_with("/usr/local") {
        "/usr/local"
    } else {
        "/usr"
    };
    let agent = format!("{prefix}/bin/nitro-agent");
    // As whoever administers the machine asks: where the socket is need not be said.
    let status: Value = serde_json::from_str(&root.run(&[&agent, "status", "--json"])).unwrap();
    assert_eq!(status["pid"], pid, "{status:#}");
    assert_eq!(status["rights"]["system_calls_filtered"], true);
    assert!(
        status["roots"].as_array().unwrap().contains(&MODELS.into()),
        "{status:#}"
    );
    assert_eq!(status["files"], 1, "{status:#}");

    let mut reader = bed.reader(weights);
    reader.read(16 * MIB, MIB);
    until("it is warmed", || resident_all(weights) >= 32 * MIB);
    reader.end();
    // It writes to its own two directories and to nothing else.
    let touch = |path: &str| {
        let path = format!("/proc/{pid}/root{path}");
        fs::write(&path, "").map(|()| fs::remove_file(&path).unwrap())
    };
    for own in ["/run/nitro-agent/x", "/var/lib/nitro-agent/x"] {
        touch(own).unwrap();
    }
    for other in [
        "/etc/x",
        "/usr/bin/x",
        "/var/lib/x",
        "/srv/models/x",
        "/run/x",
        "/sys/x",
    ] {
        let error = touch(other).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{other}: {error}");
    }

    kill(Pid::from_raw(pid as i32), Signal::SIGTERM).unwrap();
    assert_eq!(said(), "STOPPING=1");
    assert!(service.0.wait().unwrap().success());
    // As the service manager does when the service has ended.
    fs::remove_dir(root.path().join("run/nitro-agent")).unwrap();
    fs::remove_file(&socket).unwrap();
}

fn names(paths: &BTreeSet<PathBuf>, name: &str) -> usize {
    paths
        .iter()
        .filter(|path| path.to_string_lossy().contains(name))
        .count()
}

#[test]
fn a_debian_package_is_installed_serves_and_is_removed_without_trace() {
    scenario(384, |bed| {
        let weights = private(bed);
        bed.limit(100);
        let (dist, _stays) = dist();
        let root = Root::new(&dist, weights.parent().unwrap());
        let before = root.written();
        let package = fs::read_dir(&dist).unwrap().flatten().map(|entry| entry.file_name());
        let package: Vec<_> = package
            .filter(|name| name.to_string_lossy().ends_with(".deb"))
            .collect();
        assert_eq!(package.len(), 1, "{package:?}");
        let package = format!("{DIST}/{}", package[0].to_string_lossy());
        root.run(&["dpkg", "--install", &package]);
        let installed = root.written();
        assert!(names(&installed, "nitro-agent") >= 12, "{installed:#?}");
        root.run(&["dpkg", "--verify", "nitro-agent"]);
        root.run(&["nitro-agent", "--version"]);
        serves(bed, &root, "/usr/lib/systemd/system/nitro-agent.service", &weights);

        // Without a purge the configuration stays, changed or not, and so does the state.
        root.run(&["dpkg", "--remove", "nitro-agent"]);
        let left = root.written();
        assert_eq!(names(&left, "etc/nitro-agent/nitro-agent.conf"), 1, "{left:#?}");
        assert_eq!(names(&left, "var/lib/nitro-agent"), 1, "{left:#?}");
        assert_eq!(names(&left, "bin/nitro-agent"), 0, "{left:#?}");
        root.run(&["dpkg", "--purge", "nitro-agent"]);
        assert_eq!(root.written(), before);
    });
}

#[test]
fn the_scripts_install_serve_and_remove_without_trace() {
    scenario(384, |bed| {
        let weights = private(bed);
        bed.limit(100);
        let (dist, _stays) = dist();
        let root = Root::new(&dist, weights.parent().unwrap());
        let before = root.written();
        let (install, uninstall) = (format!("{DIST}/install.sh"), format!("{DIST}/uninstall.sh"));
        root.run(&[&install]);
        assert!(names(&root.written(), "nitro-agent") >= 12, "{:#?}", root.written());
        // A second time over the first, with a configuration that was changed.
        let configuration = root.path().join("etc/nitro-agent/nitro-agent.conf");
        let changed = fs::read_to_string(&configuration).unwrap() + "# changed\n";
        fs::write(&configuration, &changed).unwrap();
        root.run(&[&install]);
        assert_eq!(fs::read_to_string(&configuration).unwrap(), changed);
        serves(
            bed,
            &root,
            "/usr/local/lib/systemd/system/nitro-agent.service",
            &weights,
        );

        root.run(&[&uninstall]);
        let left = root.written();
        assert_eq!(names(&left, "etc/nitro-agent/nitro-agent.conf"), 1, "{left:#?}");
        assert_eq!(names(&left, "usr/local"), 0, "{left:#?}");
        assert!(!root.output(&[&uninstall]).status.success(), "nothing is there");
        root.run(&[&install]);
        root.run(&[&uninstall]);
        root.run(&[&uninstall, "--purge"]);
        assert_eq!(root.written(), before);
    });
}

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn folder() -> (tempfile::TempDir, StateDir) {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(&root.path().join("flydex")).unwrap();
    (root, state)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn seed() -> Zeroizing<[u8; 32]> {
    Zeroizing::new([7; 32])
}

#[test]
fn the_folder_and_its_files_are_private() {
    let (_root, state) = folder();
    state.write("paired.json", b"{}").unwrap();
    state.machine_key(seed).unwrap();
    let _lock = state.lock().unwrap();
    assert_eq!(mode(state.path()), 0o700);
    for name in ["paired.json", MACHINE_KEY_FILE, LOCK_FILE] {
        assert_eq!(mode(&state.file(name)), 0o600, "{name}");
    }
}

#[test]
fn a_folder_that_others_can_enter_is_refused() {
    let (_root, state) = folder();
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o750)).unwrap();
    let error = StateDir::open(state.path()).unwrap_err();
    assert!(matches!(error, StateError::Exposed { .. }), "{error}");
    assert!(error.next_step().contains("chmod 700"));
}

#[test]
fn a_key_that_others_can_read_is_refused_and_not_replaced() {
    let (_root, state) = folder();
    state.machine_key(seed).unwrap();
    fs::set_permissions(state.file(MACHINE_KEY_FILE), fs::Permissions::from_mode(0o644)).unwrap();
    let error = state.machine_key(|| Zeroizing::new([8; 32])).unwrap_err();
    assert!(matches!(error, StateError::Exposed { .. }), "{error}");
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    let (root, state) = folder();
    let outside = root.path().join("outside");
    fs::write(&outside, "secret").unwrap();
    symlink(&outside, state.file("paired.json")).unwrap();
    assert!(state.read("paired.json").is_err());
    state.write("paired.json", b"{}").unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"secret");
    assert_eq!(state.read("paired.json").unwrap().unwrap().as_slice(), b"{}");
}

#[test]
fn the_machine_key_stays_the_same() {
    let (_root, state) = folder();
    let first = state.machine_key(seed).unwrap();
    let second = state.machine_key(|| panic!("a second key must not be made")).unwrap();
    assert_eq!(first.to_bytes(), second.to_bytes());
    assert!(fs::read_to_string(state.file(MACHINE_KEY_FILE)).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
}

#[test]
fn a_damaged_machine_key_is_said_and_kept() {
    let (_root, state) = folder();
    state.write(MACHINE_KEY_FILE, b"nonsense").unwrap();
    let error = state.machine_key(seed).unwrap_err();
    assert!(matches!(error, StateError::Unexpected { .. }), "{error}");
    assert_eq!(state.read(MACHINE_KEY_FILE).unwrap().unwrap().as_slice(), b"nonsense");
}

#[test]
fn a_second_holder_is_told_that_one_runs() {
    let (_root, state) = folder();
    let first = state.lock().unwrap();
    assert_eq!(state.lock().unwrap_err().code(), ErrorCode::AlreadyRunning);
    drop(first);
    state.lock().unwrap();
}

#[test]
fn replacing_a_file_leaves_nothing_aside() {
    let (_root, state) = folder();
    state.write("devices.json", b"one").unwrap();
    state.write("devices.json", b"two").unwrap();
    assert_eq!(state.read("devices.json").unwrap().unwrap().as_slice(), b"two");
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1);
    state.remove("devices.json").unwrap();
    state.remove("devices.json").unwrap();
    assert!(state.read("devices.json").unwrap().is_none());
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let (_root, state) = folder();
    state.write("paired.json", &vec![b' '; usize::try_from(STATE_FILE_BYTES_MAX).unwrap() + 1]).unwrap();
    assert!(matches!(state.read("paired.json"), Err(StateError::Unexpected { .. })));
}

#[test]
fn the_place_follows_the_environment() {
    let given = |pairs: &'static [(&str, &str)]| {
        StateDir::default_path(move |name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    };
    let all = given(&[("FLYDEX_HOME", "/a"), ("XDG_STATE_HOME", "/b"), ("HOME", "/c")]);
    assert_eq!(all.unwrap(), Path::new("/a"));
    assert_eq!(given(&[("XDG_STATE_HOME", "/b"), ("HOME", "/c")]).unwrap(), Path::new("/b/flydex"));
    assert_eq!(given(&[("HOME", "/c")]).unwrap(), Path::new("/c/.local/state/flydex"));
    assert!(matches!(given(&[("HOME", "")]), Err(StateError::NoHome)));
}

#[test]
fn a_loose_file_of_any_name_is_found() {
    let (_root, state) = folder();
    state.write("journal", b"").unwrap();
    state.check_files().unwrap();
    fs::set_permissions(state.file("journal"), fs::Permissions::from_mode(0o640)).unwrap();
    let error = state.check_files().unwrap_err();
    assert!(error.next_step().contains("chmod 600"), "{}", error.next_step());
}

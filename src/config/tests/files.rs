//! The file itself, and the files that it names.

use super::*;

#[test]
fn secrets_are_read_from_files_beside_the_configuration() {
    let dir = TempDir::new().unwrap();
    write(&dir, "secret", &format!(" {LONG} x \r\n"), 0o640);
    let tokens = format!("# Prosody\n\n  {LONG}\n#\n{LONG}2\n");
    write(&dir, "tokens", &tokens, 0o600);
    let text = "[auth]\nsecret_file = \"secret\"\nservice.tokens_file = \"tokens\"";
    let config = parse_in(dir.path(), text, &[]).unwrap();
    let secret = config.auth.secret.as_ref().unwrap();
    assert_eq!(secret.expose(), format!(" {LONG} x "));
    let tokens = config
        .auth
        .service
        .tokens
        .iter()
        .map(|it| it.token.expose());
    assert!(tokens.eq([LONG, &format!("{LONG}2")]));
}

#[test]
fn byte_order_mark_is_no_part_of_a_file() {
    let dir = TempDir::new().unwrap();
    let mark = '\u{feff}';
    write(&dir, "secret", &format!("{mark}{LONG}\r\n"), 0o600);
    write(&dir, "tokens", &format!("{mark}{LONG}\r\n"), 0o600);
    write(
        &dir,
        "domain",
        &format!("{mark}meet.example.org\r\n"),
        0o644,
    );
    let text = "[auth]\nsecret_file = \"secret\"\nservice.tokens_file = \"tokens\"\n[xmpp]\ndomain_file = \"domain\"";
    write(&dir, "config.toml", &format!("{mark}{text}"), 0o600);
    let (config, _) = Config::load(Some(&dir.path().join("config.toml"))).unwrap();
    assert_eq!(config.auth.secret.as_ref().unwrap().expose(), LONG);
    assert_eq!(config.auth.service.tokens[0].token.expose(), LONG);
    assert_eq!(config.xmpp.domain, "meet.example.org");
    assert!(config.warnings().is_empty());
}

#[test]
fn secret_with_lines_or_spaces_causes_a_warning() {
    let dir = TempDir::new().unwrap();
    for (content, warning) in [
        (format!("{LONG}\n{LONG}\n"), "several lines"),
        (format!("{LONG} \n"), "begins or ends with a space"),
        (format!("\t{LONG}\n"), "begins or ends with a space"),
    ] {
        write(&dir, "secret", &content, 0o600);
        let config = parse_in(dir.path(), "auth.secret_file = \"secret\"", &[]).unwrap();
        let warnings = config.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains(warning) && !warnings[0].contains(LONG),
            "{warnings:?}"
        );
    }
}

#[test]
fn unusable_file_is_reported_with_its_path() {
    let dir = TempDir::new().unwrap();
    write(&dir, "empty", " \n", 0o600);
    fs::write(dir.path().join("utf16"), b"\xff\xfes\0e\0").unwrap();
    write(&dir, "comments", "# none yet\n\n", 0o600);
    write(&dir, "spaced", "good-token-0123456789\nnot good\n", 0o600);
    write(&dir, "huge", &"x".repeat(1024 * 1024 + 1), 0o600);
    let table = r#"
auth.secret_file = "none" | DIR/none cannot be read | Create the file
auth.secret_file = "." | cannot be read | correct the path
auth.secret_file = "huge" | larger than 1048576 bytes | path
auth.secret_file = "empty" | DIR/empty is empty | Prosody's app_secret
auth.secret_file = "utf16" | DIR/utf16 cannot be read | UTF-8
auth.service.tokens_file = "none" | cannot be read | Create the file
auth.service.tokens_file = "comments" | DIR/comments is empty | openssl rand
auth.service.tokens_file = "spaced" | line 2 of DIR/spaced | letters and digits
auth.public_keys.k1 = "none.pem" | DIR/none.pem cannot be read | Create the file
auth.public_keys.k1 = "." | directory | correct the path
xmpp.domain_file = "empty" | is not a host name | Write it like
"#;
    let table = table.replace("DIR", &dir.path().display().to_string());
    each_is_refused(dir.path(), &table);
    let error = parse_in(dir.path(), "auth.service.tokens_file = \"spaced\"", &[]).unwrap_err();
    assert!(!error.to_string().contains("not good"));
}

#[test]
fn value_and_its_file_exclude_each_other() {
    let dir = TempDir::new().unwrap();
    write(&dir, "file", LONG, 0o600);
    for (inline, file) in [
        ("auth.secret = \"a\"", "auth.secret_file"),
        ("auth.service.tokens = [\"a\"]", "auth.service.tokens_file"),
        ("xmpp.domain = \"a.example\"", "xmpp.domain_file"),
    ] {
        let text = format!("{inline}\n{file} = \"file\"");
        let issue = only(parse_in(dir.path(), &text, &[]).unwrap_err().issues);
        let (key, _) = inline.split_once(" = ").unwrap();
        contains(
            &issue,
            file,
            Some(2),
            &format!("{key} too"),
            "Keep one of the two",
        );
    }
    let text = "[auth.service]\ntokens = []\ntokens_file = \"file\"";
    parse_in(dir.path(), text, &[]).unwrap();
}

#[test]
fn variable_overrides_the_other_key_of_a_value_and_its_file() {
    let dir = TempDir::new().unwrap();
    write(&dir, "file", "from-the-file-0123", 0o600);
    let secret = |text: &str, env: &[(&str, &str)]| {
        let auth = parse_in(dir.path(), text, env).unwrap().auth;
        auth.secret.unwrap().expose().to_owned()
    };
    let (file, inline) = ("auth.secret_file = \"none\"", "auth.secret = \"inline\"");
    assert_eq!(secret(file, &[("USHER_AUTH__SECRET", "env")]), "env");
    assert_eq!(
        secret(inline, &[("USHER_AUTH__SECRET_FILE", "file")]),
        "from-the-file-0123"
    );
    assert_eq!(secret(inline, &[("USHER_AUTH__SECRET", "env")]), "env");

    let both = [
        ("USHER_AUTH__SECRET", "a"),
        ("USHER_AUTH__SECRET_FILE", "file"),
    ];
    let issue = only(parse_in(dir.path(), "", &both).unwrap_err().issues);
    contains(
        &issue,
        "USHER_AUTH__SECRET_FILE",
        None,
        "USHER_AUTH__SECRET too",
        "Keep one",
    );

    let none = [("USHER_AUTH__SERVICE__TOKENS", "[]")];
    let text = "auth.service.tokens_file = \"file\"";
    let auth = parse_in(dir.path(), text, &none).unwrap().auth;
    assert!(auth.service.tokens.is_empty());
}

#[test]
fn domain_is_read_from_a_file() {
    let dir = TempDir::new().unwrap();
    write(&dir, "domain", "Meet.Example.org\n", 0o644);
    let text = "xmpp.domain_file = \"domain\"";
    let config = parse_in(dir.path(), text, &[]).unwrap();
    assert_eq!(config.xmpp.domain, "meet.example.org");
    let env = [("USHER_XMPP__DOMAIN", "meet.example.net")];
    let config = parse_in(dir.path(), text, &env).unwrap();
    assert_eq!(config.xmpp.domain, "meet.example.net");
}

#[test]
fn public_keys_are_found_beside_the_configuration_and_in_a_directory() {
    let dir = TempDir::new().unwrap();
    let keys = dir.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let text = "auth.public_keys_dir = \"keys\"";
    let auth = parse_in(dir.path(), text, &[]).unwrap().auth;
    assert!(!auth.any_key());
    for name in ["jitsi.pem", "other.pem", "README", ".pem"] {
        fs::write(keys.join(name), "").unwrap();
    }
    let text = format!(
        "{text}\nauth.public_keys = {{ other = \"keys/README\", \"a/key 1\" = \"keys/jitsi.pem\" }}"
    );
    let config = parse_in(dir.path(), &text, &[]).unwrap();
    assert!(config.auth.any_key());
    assert!(config.warnings().is_empty());
    let found = config.auth.public_keys.into_iter();
    let found: Vec<_> = found
        .map(|(kid, path)| (kid, path.file_name().unwrap().to_owned()))
        .collect();
    let expected = [
        ("a/key 1", "jitsi.pem"),
        ("jitsi", "jitsi.pem"),
        ("other", "README"),
    ];
    assert_eq!(
        found,
        expected.map(|(kid, name)| (kid.to_owned(), name.into()))
    );
}

#[test]
fn named_file_is_read_and_named_as_the_source() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("other.toml");
    write(&dir, "key", LONG, 0o600);
    write(&dir, "other.toml", "[auth]\nsecret_file = \"key\"", 0o600);
    let (config, source) = Config::load(Some(&path)).unwrap();
    assert_eq!(config.auth.secret.unwrap().expose(), LONG);
    assert_eq!(source, Source::File(path.clone()));
    assert_eq!(source.to_string(), path.display().to_string());
    assert_eq!(Source::Defaults.to_string(), "the built-in defaults");
}

#[test]
fn named_file_must_exist_and_be_text() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("latin1.toml"), b"# caf\xe9\n").unwrap();
    for name in ["none.toml", "latin1.toml", "."] {
        let path = dir.path().join(name);
        let error = Config::load(Some(&path)).unwrap_err();
        assert_eq!(error.source_name, path.display().to_string());
        contains(
            &only(error.issues),
            "",
            None,
            "cannot be read",
            "--config FILE",
        );
    }
}

#[test]
fn service_prefers_the_file_of_its_directory_and_a_command_that_of_the_package() {
    let dir = TempDir::new().unwrap();
    let [local, package] = ["local.toml", "package.toml"].map(|name| dir.path().join(name));
    write(&dir, "local.toml", "# local", 0o600);
    let found = |usual| find_file(usual).unwrap();
    let usual = [package.as_path(), local.as_path()];
    assert_eq!(found(usual).1, Source::File(local.clone()));
    write(&dir, "package.toml", "# package", 0o600);
    assert_eq!(
        found(usual),
        ("# package".to_owned(), Source::File(package))
    );
    let [serve, command] = [Purpose::Serve, Purpose::Command].map(Purpose::usual_files);
    assert_eq!(
        serve.map(Path::new),
        [Path::new(LOCAL_FILE), Path::new(PACKAGE_FILE)]
    );
    assert_eq!(
        command.map(Path::new),
        [Path::new(PACKAGE_FILE), Path::new(LOCAL_FILE)]
    );
    let named = Source::File(local);
    assert_eq!(named.passed_over(), None);
}

#[test]
fn annotated_file_is_found_in_the_current_directory() {
    // Tests run at the root of the project, where config.toml is.
    let (_, source) = Config::load(None).unwrap();
    assert_eq!(source.to_string(), "./config.toml");
}

//! Certificates and keys as OpenSSL makes them: what it serves is served, and what is not is
//! named.

use std::path::{Path, PathBuf};
use std::process::Command;

use http::StatusCode;
use serde_json::json;
use tempfile::TempDir;
use testkit::command::run_bounded;
use testkit::prelude::*;
use tokio::process::Child;

use crate::command_line::check;
use crate::support::{get, logged};

/// Files that `openssl` makes.
struct Made(TempDir);

impl Made {
    fn new() -> Self {
        Self(TempDir::with_prefix("testkit-openssl-").unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// Runs it in the directory of the files.
    fn openssl(&self, arguments: &str) -> String {
        let mut command = Command::new("openssl");
        command
            .current_dir(self.0.path())
            .args(arguments.split_whitespace());
        run_bounded(command, PATIENCE).unwrap()
    }

    /// A key, `NAME.key`, of an algorithm with options.
    fn key(&self, name: &str, algorithm: &str) {
        self.openssl(&format!("genpkey -algorithm {algorithm} -out {name}.key"));
    }

    /// A self-signed certificate, `NAME.pem`, of the key of that name.
    fn certificate(&self, name: &str, options: &str) {
        self.openssl(&format!(
            "req -x509 -new -key {name}.key -subj /CN={name} -out {name}.pem {options}"
        ));
    }

    /// A key on P-256 and its certificate.
    fn pair(&self, name: &str, options: &str) {
        self.key(name, "EC -pkeyopt ec_paramgen_curve:P-256");
        self.certificate(name, options);
    }

    /// A certificate of version 1, as those without extensions are.
    fn version_1(&self, name: &str) {
        self.key(name, "RSA -pkeyopt rsa_keygen_bits:2048");
        self.openssl(&format!(
            "req -new -key {name}.key -subj /CN={name} -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -signkey {name}.key -out {name}.pem"
        ));
        let text = self.openssl(&format!("x509 -in {name}.pem -noout -text"));
        assert!(text.contains("Version: 1"), "{text}");
    }

    /// A certificate that is valid between these days of the calendar, `YYMMDD`.
    fn dated(&self, name: &str, begin: &str, end: &str) {
        self.key(name, "EC -pkeyopt ec_paramgen_curve:P-256");
        self.openssl(&format!(
            "req -new -key {name}.key -subj /CN={name} -out {name}.csr"
        ));
        self.write("index", "");
        let configuration = "[ca]\ndefault_ca=x\n[x]\ndatabase=index\nnew_certs_dir=.\n\
                             rand_serial=yes\npolicy=p\ndefault_md=sha256\n[p]\ncommonName=supplied\n";
        self.write("ca.conf", configuration);
        self.openssl(&format!(
            "ca -batch -config ca.conf -selfsign -notext -in {name}.csr -keyfile {name}.key \
             -out {name}.pem -startdate {begin}000000Z -enddate {end}000000Z"
        ));
    }

    /// What `check` says to these two files.
    async fn check(&self, cert: &Path, key: &Path) -> (Option<i32>, String) {
        let config = json!({"CertFile": cert, "KeyFile": key});
        let ended = check(&self.write("gateway.conf", config.to_string())).await;
        (ended.code(), ended.stderr)
    }

    /// Starts a gateway with these two files, and fetches what `openssl s_client` is shown: all
    /// certificates as PEM.
    async fn shown(&self, cert: &Path, key: &Path) -> Vec<String> {
        let (code, told) = self.check(cert, key).await;
        assert_eq!(code, Some(0), "{told}");
        let gateway = Gateway::builder()
            .set("CertFile", cert.to_str().unwrap())
            .set("KeyFile", key.to_str().unwrap());
        let gateway = gateway.spawn().await.unwrap();
        let address = gateway.tls_addr();
        let arguments = format!("s_client -connect {address} -showcerts");
        let shown = tokio::task::block_in_place(|| self.openssl(&arguments));
        certificates(&shown)
    }

    /// Checks that all these certificates are shown, in this order.
    async fn assert_shows(&self, cert: &Path, key: &Path, names: &[&str]) {
        let expected: Vec<_> = names
            .iter()
            .flat_map(|name| certificates(&self.read(&format!("{name}.pem"))))
            .collect();
        assert_eq!(self.shown(cert, key).await, expected, "{}", cert.display());
    }
}

fn certificates(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    blocks
        .map(|block| block.split(END).next().unwrap().trim().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_openssl_serves_is_served() {
    let made = Made::new();
    made.version_1("v1");
    made.pair(
        "critical",
        "-addext 1.2.3.4=critical,DER:0500 -addext nameConstraints=critical,permitted;DNS:x",
    );
    made.key("rsa", "RSA -pkeyopt rsa_keygen_bits:3072");
    made.certificate("rsa", "-sha1");
    made.key("p384", "EC -pkeyopt ec_paramgen_curve:P-384");
    made.certificate("p384", "");
    made.key("ed", "ED25519");
    made.certificate("ed", "");
    for name in ["v1", "critical", "rsa", "p384", "ed"] {
        let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
        let (cert, key) = (made.path(&cert), made.path(&key));
        made.assert_shows(&cert, &key, &[name]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_may_be_written_in_many_ways() {
    let made = Made::new();
    made.pair("a", "");
    made.pair("b", "");
    let (key, a, b) = (made.path("a.key"), made.read("a.pem"), made.read("b.pem"));
    let glued = made.write("glued", format!("{}{b}", a.trim_end()));
    made.assert_shows(&glued, &key, &["a", "b"]).await;
    let mixed = format!(
        "\u{feff}Subject: a\n\n{}{a}\nIssuer: b\n{b}\nend\n",
        made.read("a.key")
    );
    let mixed = made.write("mixed", mixed.replace('\n', "\r\n"));
    made.assert_shows(&mixed, &mixed, &["a", "b"]).await;
    made.openssl("x509 -in a.pem -trustout -addtrust serverAuth -out trusted");
    made.assert_shows(&made.path("trusted"), &key, &["a"]).await;

    // All forms of keys; that of EC with its parameters in front.
    made.openssl("ecparam -genkey -name prime256v1 -out sec1.key");
    made.certificate("sec1", "");
    assert!(made.read("sec1.key").contains("BEGIN EC PARAMETERS"));
    made.openssl("genrsa -traditional -out pkcs1.key 2048");
    made.certificate("pkcs1", "");
    assert!(made.read("pkcs1.key").contains("BEGIN RSA PRIVATE KEY"));
    for name in ["sec1", "pkcs1"] {
        let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
        made.assert_shows(&made.path(&cert), &made.path(&key), &[name])
            .await;
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_named() {
    let made = Made::new();
    made.pair("a", "");
    made.pair("b", "");
    made.key("small", "RSA -pkeyopt rsa_keygen_bits:1024");
    made.key("pss", "RSA-PSS -pkeyopt rsa_keygen_bits:2048");
    made.key("ed448", "ED448");
    made.key("koblitz", "EC -pkeyopt ec_paramgen_curve:secp256k1");
    for name in ["small", "pss", "ed448", "koblitz"] {
        made.certificate(name, "");
    }
    made.openssl("pkcs8 -topk8 -in a.key -passout pass:x -out encrypted.key");
    made.openssl("ec -in a.key -aes256 -passout pass:x -out legacy.key");
    assert!(made.read("legacy.key").contains("Proc-Type"));
    made.openssl("x509 -in a.pem -outform DER -out der.pem");
    made.openssl("pkcs12 -export -in a.pem -inkey a.key -passout pass:x -out pkcs12.pem");
    made.openssl("pkey -in a.key -pubout -out public.key");
    let (a, b) = (made.read("a.pem"), made.read("b.pem"));
    made.write("swapped.pem", format!("{b}{a}"));
    made.write("junk.pem", a.replace("MII", "MAA"));
    let passphrase = "KeyFile: expected a PEM file with a private key: the key is encrypted; the \
                      gateway needs it without a passphrase";
    for (cert, key, expected) in [
        ("a.pem", "encrypted.key", passphrase),
        ("a.pem", "legacy.key", passphrase),
        (
            "der.pem",
            "a.key",
            "CertFile: expected a PEM file with a certificate: it is binary",
        ),
        (
            "pkcs12.pem",
            "a.key",
            "CertFile: expected a PEM file with a certificate: it is binary",
        ),
        ("junk.pem", "a.key", "certificate 1 is not well-formed"),
        (
            "a.pem",
            "public.key",
            "KeyFile: expected a PEM file with a private key: it has none, but PUBLIC KEY",
        ),
        (
            "a.pem",
            "b.key",
            "KeyFile: expected the key of the certificate in",
        ),
        ("a.pem", "b.key", "a.pem: it is that of another one"),
        (
            "swapped.pem",
            "a.key",
            "it is that of certificate 2; the gateway's own certificate must come first",
        ),
        (
            "small.pem",
            "small.key",
            "KeyFile: expected a PEM file with a private key: a key of this kind (RSA, 1024 bits)",
        ),
        (
            "pss.pem",
            "pss.key",
            "a key of this kind (rsassa-pss) cannot be used",
        ),
        (
            "ed448.pem",
            "ed448.key",
            "a key of this kind (ed448) cannot be used",
        ),
        (
            "koblitz.pem",
            "koblitz.key",
            "a key of this kind (EC, 1.3.132.0.10) cannot be used",
        ),
    ] {
        let (code, told) = made.check(&made.path(cert), &made.path(key)).await;
        assert_eq!(code, Some(78), "{told}");
        assert!(told.contains(expected), "{expected:?} is not in {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_odd_is_served_with_a_warning() {
    let made = Made::new();
    made.pair("a", "");
    made.pair("b", "");
    made.dated("old", "200101", "210202");
    made.dated("future", "490101", "491231");
    let chain = made.write(
        "chain",
        format!("{}{}", made.read("a.pem"), made.read("b.pem")),
    );
    let path = |name: &str| made.path(name);
    for (cert, key, warning) in [
        (
            chain,
            path("a.key"),
            "certificate 2 is not that of the issuer of certificate 1",
        ),
        (
            path("old.pem"),
            path("old.key"),
            "CertFile: the certificate has expired; it was valid until 2021-02-02T00:00:00Z",
        ),
        (
            path("future.pem"),
            path("future.key"),
            "CertFile: the certificate is not valid before 2049-01-01T00:00:00Z",
        ),
    ] {
        let (code, told) = made.check(&cert, &key).await;
        assert_eq!(code, Some(0), "{told}");
        assert!(
            told.starts_with("warning: ") && told.contains(warning),
            "{told}"
        );
        assert_ne!(made.shown(&cert, &key).await, Vec::<String>::new());
    }
    for (name, line) in [
        (
            "old",
            "the certificate has expired certificate=old until 2021-02-02 since=2021-02-02T00:00:00Z",
        ),
        (
            "future",
            "the certificate is not valid yet certificate=future until 2049-12-31 from=2049-01-01T00:00:00Z",
        ),
    ] {
        let gateway = Gateway::builder()
            .set("CertFile", path(&format!("{name}.pem")).to_str().unwrap())
            .set("KeyFile", path(&format!("{name}.key")).to_str().unwrap());
        let gateway = gateway.spawn().await.unwrap();
        logged(&gateway, &["WARN", line]).await;
        assert_eq!(gateway.count_logged("ends soon").await, 0);
    }
}

/// An HTTPS server whose certificates and keys rustls cannot have.
struct OpenSslManager {
    port: u16,
    _server: Child,
}

impl OpenSslManager {
    async fn new(made: &Made, name: &str, options: &str) -> Self {
        let port = testkit::net::free_port().unwrap();
        let mut command = tokio::process::Command::new("openssl");
        let (cert, key) = (
            made.path(&format!("{name}.pem")),
            made.path(&format!("{name}.key")),
        );
        command
            .args(["s_server", "-www", "-accept"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("-cert")
            .arg(cert)
            .arg("-key")
            .arg(key)
            .args(options.split_whitespace())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true);
        let server = command.spawn().unwrap();
        let connected = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_err()
            {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        within("start of s_server", connected).await.unwrap();
        Self {
            port,
            _server: server,
        }
    }

    /// Whether a gateway gets an answer from it.
    async fn answers(&self, ca_file: Option<&Path>) -> bool {
        let mut gateway = Gateway::builder()
            .set("ManagerIP", "127.0.0.1")
            .set("ManagerPort", self.port);
        if let Some(file) = ca_file {
            gateway = gateway.set("ManagerCAFile", file.to_str().unwrap());
        }
        let gateway = gateway.spawn().await.unwrap();
        let status = get(&gateway.tls(), "/vdi/x").await.status();
        if status != StatusCode::OK {
            assert_eq!(status, StatusCode::BAD_GATEWAY, "{:?}", gateway.log_tail());
        }
        status == StatusCode::OK
    }
}

#[tokio::test]
async fn any_certificate_of_the_manager_means_any() {
    let made = Made::new();
    made.version_1("v1");
    made.pair("critical", "-addext 1.2.3.4=critical,DER:0500");
    made.dated("old", "200101", "210202");
    made.key("weak", "RSA -pkeyopt rsa_keygen_bits:1024");
    made.certificate("weak", "-sha1");
    made.key("pss", "RSA-PSS -pkeyopt rsa_keygen_bits:2048");
    made.certificate("pss", "");
    made.key("ed448", "ED448");
    made.certificate("ed448", "");
    for name in ["v1", "critical", "old", "weak", "pss", "ed448"] {
        for version in ["-tls1_3", "-tls1_2"] {
            // TLS 1.2 has no way to agree on these two that both libraries know.
            if version == "-tls1_2" && ["pss", "ed448"].contains(&name) {
                continue;
            }
            let options = format!("{version} -cipher DEFAULT@SECLEVEL=0");
            let manager = OpenSslManager::new(&made, name, &options).await;
            assert!(manager.answers(None).await, "{name} {version}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_listed_may_be_any_if_its_key_is_there() {
    let made = Made::new();
    made.version_1("v1");
    made.pair("critical", "-addext 1.2.3.4=critical,DER:0500");
    made.pair("other", "");
    for name in ["v1", "critical"] {
        for version in ["-tls1_3", "-tls1_2"] {
            let manager = OpenSslManager::new(&made, name, version).await;
            let own = made.path(&format!("{name}.pem"));
            assert!(manager.answers(Some(&own)).await, "{name} {version}");
            let other = made.path("other.pem");
            assert!(!manager.answers(Some(&other)).await, "{name} {version}");
        }
    }
}

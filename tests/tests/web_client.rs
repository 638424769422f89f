//! The client for browsers in Chromium: from the login to a desktop, and back.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::browser;
use testkit::gateway::{Gateway, GatewayBuilder, Signal};
use testkit::host::Host;
use testkit::manager::{DesktopAnswer, Manager, ManagerRequest, Reply};
use testkit::net::PATIENCE;
use testkit::packages::{self, Package, SPICE_HTML5};
use testkit::picture::Picture;
use testkit::qemu::SpiceVm;
use testkit::spice::read_link;

const USER: &str = "ada";
const PASSWORD: &str = "p4ssw0rd of ada";
const SPICE_PASSWORD: &str = "only \\ for Spice";

/// A gateway with the client in front of a manager.
struct Site {
    manager: Manager,
    gateway: Gateway,
    folder: TempDir,
}

/// What was seen.
#[derive(Debug, Deserialize)]
struct Seen {
    told: Vec<Value>,
    complaints: Vec<String>,
    addresses: Vec<String>,
}

impl Site {
    async fn start(configure: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Result<Self> {
        tokio::task::spawn_blocking(|| {
            browser::ensure_installed()?;
            packages::ensure_axe()
        })
        .await??;
        let manager = Manager::builder().spawn().await?;
        manager.require_password(USER, PASSWORD);
        let gateway = Gateway::builder()
            .manager(&manager)
            .set("WebClient", SPICE_HTML5);
        Ok(Self {
            gateway: configure(gateway).spawn().await?,
            manager,
            folder: tempfile::tempdir()?,
        })
    }

    /// Does these steps of `webclient.mjs`.
    async fn visit(&self, steps: Value) -> Result<Seen> {
        self.visit_as(json!({}), steps).await
    }

    /// The same in a browser of another kind.
    async fn visit_as(&self, mut job: Value, steps: Value) -> Result<Seen> {
        job["page"] = json!(format!("https://{}/", self.gateway.tls_addr()));
        job["steps"] = steps;
        job["axe"] = json!(packages::ensure_axe()?);
        let seen: Seen = browser::run("webclient.mjs", job, PATIENCE * 2).await?;
        assert_eq!(seen.complaints, Vec::<String>::new(), "{seen:?}");
        Ok(seen)
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn picture(&self, name: &str, size: &Value) -> Result<Picture> {
        let side =
            |name: &str| -> Result<u32> { Ok(size[name].as_u64().context("a side")?.try_into()?) };
        let pixels = std::fs::read(self.file(name))?;
        Picture::from_rgba(side("width")?, side("height")?, &pixels)
    }
}

/// Steps one after the other.
fn steps(parts: &[&Value]) -> Value {
    let all = parts.iter().filter_map(|part| part.as_array()).flatten();
    Value::Array(all.cloned().collect())
}

/// Logs in with the keyboard alone.
fn log_in(password: &str) -> Value {
    json!([
        ["see", "#username"],
        ["fill", "#username", USER],
        ["press", "Tab"],
        ["fill", "#password", password],
        ["press", "Enter"],
    ])
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_person_logs_in_and_works_at_a_desktop() {
    packages::ensure(&[Package::Qemu, Package::SpiceScreenshot]).unwrap();
    let site = Site::start(|gateway| gateway).await.unwrap();
    let vm = SpiceVm::start(Some(SPICE_PASSWORD)).await.unwrap();
    let begin = vm.picture().await.unwrap();
    let desktop = DesktopAnswer::new(vm.address()).password(SPICE_PASSWORD);
    site.manager.set_desktop(desktop);
    site.manager.script([Reply::Pending]);
    let (first, second, third) = (site.file("1"), site.file("2"), site.file("3"));
    let work = json!([
        ["picture", first],
        ["focus"],
        ["press", "a"],
        ["picture", second],
        ["video"],
        ["audit"],
        ["press", "Shift+F11"],
        ["see", "#desktop:fullscreen"],
        ["press", "Shift+F12"],
        ["see", "#bar"],
        ["focus"],
        ["download", "[data-action=viewer]", site.file("vv")],
        ["click", "[data-action=ctrl-alt-del]"],
        ["focus"],
        ["press", "k"],
        ["picture", third],
        ["traces"],
        ["click", "[data-action=disconnect]"],
        ["tell", "#notice"],
        ["focus"],
        ["value", "#password"],
    ]);
    let seen = site
        .visit(steps(&[&log_in(PASSWORD), &work]))
        .await
        .unwrap();
    let told = &seen.told;
    let shown = site.picture("1", &told[0]).unwrap();
    assert_eq!(shown.differing_pixels(&begin), 0);
    assert_eq!(told[1], "spice_surface_0");
    let typed = site.picture("2", &told[2]).unwrap();
    assert!(typed.differing_pixels(&begin) > 60_000);
    assert_eq!((&told[3], &told[4]), (&json!("absolute 7px"), &json!([])));
    let told = &told[2..];
    assert_eq!(told[3], "full-screen");
    assert_eq!(told[4], "desktop.vv");
    assert_eq!(told[5], "spice_surface_0");
    let address = format!("https://{}/", site.gateway.tls_addr());
    assert_eq!(
        told[7],
        json!({"cookies": 0, "stored": 0, "address": address, "history": 2, "language": "en"})
    );
    assert_eq!(told[8], "You are disconnected from your desktop.");
    assert_eq!((&told[9], &told[10]), (&json!("password"), &json!("")));
    // Without the gateway the same is seen.
    let last = site.picture("3", &told[6]).unwrap();
    assert_eq!(last.differing_pixels(&vm.picture().await.unwrap()), 0);
    assert!(last.differing_pixels(&typed) > 60_000);

    for address in &seen.addresses {
        assert!(
            !address.contains("token=") && !address.contains(USER),
            "{address}"
        );
    }
    let (_, port) = address.trim_end_matches('/').rsplit_once(':').unwrap();
    let file = std::fs::read_to_string(site.file("vv")).unwrap();
    let mut lines = file.lines();
    assert_eq!(lines.next(), Some("[virt-viewer]"));
    let lines: Vec<_> = lines.collect();
    for line in [
        "type=spice",
        "host=127.0.0.1",
        r"password=only \\ for Spice",
        "title=Your desktop",
        "delete-this-file=1",
    ] {
        assert!(lines.contains(&line), "{line}: {file}");
    }
    let proxy = lines
        .iter()
        .find_map(|line| line.strip_prefix("proxy=https://"));
    let (ticket, rest) = proxy.unwrap().split_once(':').unwrap();
    assert_eq!(rest, format!("x@127.0.0.1:{port}"));
    assert!(ticket.len() >= 16, "{file}");
    let requests = site.manager.requests();
    assert_eq!(requests.len(), 3);
    let asked = requests[2].json().unwrap();
    let expected = json!({"hwaddress": "", "username": USER, "password": PASSWORD, "desktop": ""});
    assert_eq!(asked, expected);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_wrong_password_is_told_and_another_one_may_be_tried() {
    let site = Site::start(|gateway| gateway).await.unwrap();
    let after = json!([
        ["tell", "#problem"],
        ["focus"],
        ["value", "#password"],
        ["value", "#username"],
        ["audit"],
    ]);
    let seen = site
        .visit(steps(&[
            &json!([["see", "#username"], ["audit"]]),
            &log_in("wrong"),
            &after,
        ]))
        .await
        .unwrap();
    assert_eq!(
        seen.told,
        [
            json!([]),
            json!("Wrong user or password"),
            json!("password"),
            json!(""),
            json!(USER),
            json!([])
        ]
    );
}

/// A host that takes the link message of each channel, and then does this.
async fn host_that(ends: bool) -> Result<Host<()>> {
    let answer = move |mut client| async move {
        read_link(&mut client).await?;
        if !ends {
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    Host::spawn(answer).await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn one_of_several_desktops_is_chosen_with_the_keyboard() {
    let site = Site::start(|gateway| gateway).await.unwrap();
    let host = host_that(true).await.unwrap();
    site.manager.set_desktop(DesktopAnswer::new(host.addr()));
    site.manager
        .offer_desktops(&[("lin", "Linux <b>1</b>"), ("win", "Windows")]);
    let choose = json!([
        ["see", "#choices"],
        ["tell", "#choices li:first-child"],
        ["audit"],
        ["focus"],
        ["press", "Tab"],
        ["press", "Tab"],
        ["press", "Enter"],
        ["tell", "#notice"],
        ["focus"],
    ]);
    let steps = steps(&[&log_in(PASSWORD), &choose]);
    let seen = site.visit_as(json!({"scheme": "dark"}), steps).await;
    assert_eq!(
        seen.unwrap().told,
        [
            json!("Linux <b>1</b>"),
            json!([]),
            json!("choose"),
            json!("The desktop ended the connection, or was opened somewhere else."),
            json!("password")
        ]
    );
    let requests = site.manager.requests();
    assert_eq!(requests.last().unwrap().json().unwrap()["desktop"], "win");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_person_is_told_in_their_language_why_the_desktop_ended() {
    let site = Site::start(|gateway| gateway).await.unwrap();
    let host = host_that(false).await.unwrap();
    site.manager.set_desktop(DesktopAnswer::new(host.addr()));
    let tell = json!([
        ["tell", "#notice"],
        ["tell", "label[for=username]"],
        ["traces"]
    ]);
    let work = steps(&[&log_in(PASSWORD), &tell]);
    let seen = site.visit_as(json!({"locale": "de-AT"}), work);
    let stop = async {
        let opened = |line: &str| line.contains("channel open");
        site.gateway
            .wait_for_log(opened, PATIENCE * 2)
            .await
            .unwrap();
        site.gateway.signal(Signal::TERM).unwrap();
    };
    let (seen, ()) = tokio::join!(seen, stop);
    let told = seen.unwrap().told;
    let ended =
        "Die Sitzung wurde von der Administration beendet, oder der Server wird neu gestartet.";
    assert_eq!(told[..2], [json!(ended), json!("Benutzername")]);
    assert_eq!(told[2]["language"], "de");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_login_that_waits_can_be_broken_off() {
    let site = Site::start(|gateway| gateway).await.unwrap();
    site.manager.script([Reply::Pending, Reply::Pending]);
    let wait = json!([
        ["see", "#progress:text('is being started')"],
        ["press", "Tab"],
        ["focus"],
        ["press", "Enter"],
        ["see", "#username"],
        ["focus"],
    ]);
    // By the time that this login is over, the one before would have asked again.
    let later = json!([
        ["see", "#progress:text('is being started')"],
        ["tell", "#problem"]
    ]);
    let work = steps(&[&log_in("wrong"), &wait, &log_in("wrong"), &later]);
    let told = site.visit(work).await.unwrap().told;
    let problem = json!("Wrong user or password");
    assert_eq!(told, [json!("cancel"), json!("password"), problem]);
    let asked = |request: &&ManagerRequest| request.uri.path() == "/vdi/desktop";
    let requests = site.manager.requests();
    assert_eq!(requests.iter().filter(asked).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn a_wrong_spice_password_leads_back_to_the_login() {
    packages::ensure(&[Package::Qemu]).unwrap();
    let site = Site::start(|gateway| gateway).await.unwrap();
    let vm = SpiceVm::start(Some(SPICE_PASSWORD)).await.unwrap();
    let desktop = DesktopAnswer::new(vm.address()).password("another one");
    site.manager.set_desktop(desktop);
    let tell = json!([["tell", "#notice"], ["see", "#username"]]);
    let seen = site.visit(steps(&[&log_in(PASSWORD), &tell])).await;
    assert_eq!(
        seen.unwrap().told,
        [json!(
            "The desktop did not accept its password. Please log in again."
        )]
    );
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    unprivileged,
    ignore = "needs programs that only root may install: cargo xtask test"
)]
async fn where_nobody_logs_in_nobody_is_asked() {
    let site = Site::start(|gateway| gateway).await.unwrap();
    site.manager.set_auth_mode("kiosk");
    let error = |message: &str| Reply::Error(message.to_owned());
    site.manager
        .script([error("No desktop"), error("Still none")]);
    let work = json!([
        ["tell", "#problem:text('No desktop')"],
        ["focus"],
        ["audit"],
        ["press", "Enter"],
        ["tell", "#problem:text('Still none')"],
    ]);
    let seen = site
        .visit_as(json!({"locale": "es", "width": 320}), work)
        .await;
    assert_eq!(
        seen.unwrap().told,
        [
            json!("No desktop"),
            json!("again"),
            json!([]),
            json!("Still none")
        ]
    );
    let requests = site.manager.requests();
    let asked = requests.last().unwrap().json().unwrap();
    assert_eq!(
        (&asked["username"], &asked["password"]),
        (&json!(""), &json!(""))
    );
}

//! What may stand in the file: one table, of which the JSON schema is made too.

use serde_json::{Value, json};

use super::hardware;
use super::shape::{Either, Form, Member, Shape};
use crate::certificate_subject;
use crate::channel_type::ChannelType;

/// Most entries of a kind; a bound on memory, and far more than one gateway serves.
const MOST: usize = 100_000;
/// Most desktops of one user, who has to choose among them.
const MOST_OF_A_USER: usize = 1_000;
/// Longest password that Spice servers take, in bytes: `SPICE_MAX_PASSWORD_LENGTH` of
/// spice/protocol.h.
pub(super) const MAX_SPICE_PASSWORD: usize = 60;
/// Longest time, in seconds: a week, far below what clients can count.
const MAX_SECONDS: u64 = 604_800;
/// Longest id, in characters.
const MAX_ID: usize = 64;
/// Longest name of a desktop or a user, in characters.
pub const MAX_NAME: usize = 200;

const ID: Shape = Shape::Text {
    form: Form::Identifier,
    longest: MAX_ID,
};
const NAME: Shape = Shape::Text {
    form: Form::Line,
    longest: MAX_NAME,
};

/// What may be true or false.
const fn switch(name: &'static str, about: &'static str) -> Member {
    Member {
        name,
        required: false,
        about,
        shape: &Shape::Switch,
    }
}

/// What the flexVDI client does besides, as it reads it from the answer.
pub(super) const OPTIONS: &[Member] = &[
    switch(
        "enable_audio_playback",
        "Whether the client plays the desktop's sound.",
    ),
    switch(
        "enable_audio_record",
        "Whether the client sends its microphone.",
    ),
    switch(
        "enable_copy_paste_g2h",
        "Whether what is copied at the desktop can be pasted at the client.",
    ),
    switch(
        "enable_copy_paste_h2g",
        "Whether what is copied at the client can be pasted at the desktop.",
    ),
    switch(
        "enable_power_actions",
        "Whether the client offers to restart and switch off the desktop.",
    ),
    switch("enable_printing", "Whether the client shares its printers."),
    switch(
        "enable_usb_redir",
        "Whether the client shares its USB devices.",
    ),
    switch(
        "enable_video_streaming",
        "Whether video may be sent as a stream.",
    ),
    Member {
        name: "inactivity_timeout",
        required: false,
        about: "Seconds without input after which the client ends the session; 0: never.",
        shape: &Shape::Whole {
            least: 0,
            most: MAX_SECONDS,
        },
    },
];

/// A file beside this one, or anywhere else.
const PATH: Shape = Shape::Text {
    form: Form::Line,
    longest: 4_096,
};

/// The members of `tls`.
const TLS: &[Member] = &[
    Member {
        name: "ca_file",
        required: false,
        about: "A PEM file with the authorities that may have signed the host's certificate, or with that certificate; relative to the folder of this file.",
        shape: &PATH,
    },
    Member {
        name: "fingerprint",
        required: false,
        about: "SHA-256 of the one certificate that the host may have, as `openssl x509 -noout -fingerprint -sha256` prints it behind `=`.",
        shape: &Shape::Text {
            form: Form::Digest,
            longest: 95,
        },
    },
    Member {
        name: "subject",
        required: false,
        about: "The subject that the certificate must have, such as C=IL,O=Example,CN=spice; by default, one that an authority has signed must be for the host's name or address.",
        shape: &Shape::Text {
            form: Form::Line,
            longest: certificate_subject::MAX_LENGTH,
        },
    },
];

/// The members of a desktop.
const DESKTOP: &[Member] = &[
    Member {
        name: "id",
        required: true,
        about: "What users and terminals refer to, and clients choose by.",
        shape: &ID,
    },
    Member {
        name: "name",
        required: false,
        about: "What people see when they choose; by default the id.",
        shape: &NAME,
    },
    Member {
        name: "address",
        required: true,
        about: "Where the desktop's Spice server listens: HOST:PORT, IPv6 addresses in brackets; or unix:/PATH on the gateway's machine.",
        shape: &Shape::Text {
            form: Form::Line,
            longest: 300,
        },
    },
    Member {
        name: "password",
        required: false,
        about: "The Spice server's password; by default it wants none.",
        shape: &Shape::Text {
            form: Form::Any,
            longest: MAX_SPICE_PASSWORD,
        },
    },
    Member {
        name: "password_file",
        required: false,
        about: "A file with that password on its only line; relative to the folder of this file.",
        shape: &PATH,
    },
    Member {
        name: "tls_port",
        required: false,
        about: "The port of the same host for Spice inside TLS, for native clients that speak it with the host themselves; by default there is none.",
        shape: &Shape::Whole {
            least: 1,
            most: 65_535,
        },
    },
    Member {
        name: "channels",
        required: false,
        about: "The types of Spice channels that may pass, main among them; by default those of AllowedChannels.",
        shape: &Shape::List {
            of: &Shape::OneOf(ChannelType::ALL_NAMES),
            most: 64,
            distinct: false,
            needs: Some("main"),
        },
    },
    Member {
        name: "tls",
        required: false,
        about: "The address is a TLS port, where the gateway checks the host's certificate like this; by default HostTLS decides.",
        shape: &Shape::Object {
            members: TLS,
            either: Either::Exactly(["ca_file", "fingerprint"]),
        },
    },
    Member {
        name: "options",
        required: false,
        about: "What the flexVDI client may do; by default whatever it is set up to.",
        shape: &Shape::Object {
            members: OPTIONS,
            either: Either::Any,
        },
    },
];

/// The members of a user.
const USER: &[Member] = &[
    Member {
        name: "name",
        required: true,
        about: "What the person logs in as; upper and lower case differ.",
        shape: &NAME,
    },
    Member {
        name: "password",
        required: true,
        about: "An argon2id hash of the password, as `flexvdi-gateway password` prints it.",
        shape: &Shape::Text {
            form: Form::Hash,
            longest: 300,
        },
    },
    Member {
        name: "desktops",
        required: true,
        about: "The ids of the desktops that the user may choose from.",
        shape: &Shape::List {
            of: &ID,
            most: MOST_OF_A_USER,
            distinct: true,
            needs: None,
        },
    },
];

/// The members of a terminal.
const TERMINAL: &[Member] = &[
    Member {
        name: "hwaddress",
        required: true,
        about: "The hardware address that the terminal's client sends; case and separators do not matter.",
        shape: &Shape::Text {
            form: Form::Line,
            longest: 2 * hardware::LONGEST,
        },
    },
    Member {
        name: "desktop",
        required: true,
        about: "The id of the desktop that the terminal shows without a login.",
        shape: &ID,
    },
    Member {
        name: "name",
        required: false,
        about: "What the log calls the terminal.",
        shape: &NAME,
    },
];

/// The whole file.
pub(super) const FILE: Shape = Shape::Object {
    members: &[
        Member {
            name: "$schema",
            required: false,
            about: "Where editors find the schema of this file; the gateway does not look at it.",
            shape: &Shape::Text {
                form: Form::Any,
                longest: 4_096,
            },
        },
        Member {
            name: "desktops",
            required: true,
            about: "The desktops that there are.",
            shape: &Shape::List {
                of: &Shape::Object {
                    members: DESKTOP,
                    either: Either::AtMost(["password", "password_file"]),
                },
                most: MOST,
                distinct: false,
                needs: None,
            },
        },
        Member {
            name: "users",
            required: false,
            about: "Who may log in.",
            shape: &Shape::List {
                of: &Shape::Object {
                    members: USER,
                    either: Either::Any,
                },
                most: MOST,
                distinct: false,
                needs: None,
            },
        },
        Member {
            name: "terminals",
            required: false,
            about: "Terminals that show a desktop without a login.",
            shape: &Shape::List {
                of: &Shape::Object {
                    members: TERMINAL,
                    either: Either::Any,
                },
                most: MOST,
                distinct: false,
                needs: None,
            },
        },
    ],
    either: Either::Any,
};

/// The JSON schema of the file (draft 2020-12), for editors.
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Desktops, users and terminals of flexvdi-gateway",
    });
    for (name, value) in FILE.schema() {
        schema[name] = value;
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Map;

    use super::super::reader::{Wrong, inventory};
    use super::*;

    const EXAMPLE: &str = include_str!("../../../packaging/desktops.json");
    const SHIPPED: &str = include_str!("../../../packaging/desktops.schema.json");
    const DOCUMENT: &str = include_str!("../../../docs/desktops.md");

    #[test]
    fn the_example_is_right() {
        let read = inventory(EXAMPLE.as_bytes(), Path::new("")).ok().unwrap();
        assert_eq!(read.summary(), "3 desktops, 2 users, 1 terminal");
    }

    #[test]
    fn the_schema_in_the_packages_is_the_one_that_is_printed() {
        let shipped: Value = serde_json::from_str(SHIPPED).unwrap();
        assert_eq!(
            shipped,
            schema(),
            "flexvdi-gateway schema desktops > packaging/desktops.schema.json"
        );
    }

    /// Names of the members of what a list of the file holds.
    fn members(list: &str) -> Map<String, Value> {
        let items = &schema()["properties"][list]["items"];
        items["properties"].as_object().unwrap().clone()
    }

    #[test]
    fn every_member_has_a_row_that_says_whether_it_is_required() {
        for list in ["desktops", "users", "terminals"] {
            let (_, section) = DOCUMENT.split_once(&format!("### `{list}`\n")).unwrap();
            let section = section.split("\n#").next().unwrap();
            let required = &schema()["properties"][list]["items"]["required"];
            let required = required.as_array().unwrap();
            for name in members(list).keys() {
                let answer = if required.contains(&json!(name)) {
                    "yes"
                } else {
                    "no"
                };
                let row = format!("\n| `{name}` | {answer} | ");
                assert!(section.contains(&row), "{row} in {section}");
            }
        }
        for Member { name, .. } in OPTIONS.iter().chain(TLS) {
            assert!(DOCUMENT.contains(&format!("\n| `{name}` | ")), "{name}");
        }
    }

    #[test]
    fn lists_have_an_end() {
        let desktop = |at: usize| json!({"id": at.to_string(), "address": "h:5900"});
        let told = |file: &Value| match inventory(file.to_string().as_bytes(), Path::new("")) {
            Err(Wrong::Values(problems)) => problems.to_string(),
            _ => String::new(),
        };
        let desktops: Vec<_> = (0..=MOST_OF_A_USER).map(desktop).collect();
        let ids: Vec<_> = (0..=MOST_OF_A_USER).map(|at| at.to_string()).collect();
        let hash = super::super::password::tests::quick_hash("a");
        let user = |ids: &[String]| {
            let user = json!({"name": "ana", "password": hash, "desktops": ids});
            json!({"desktops": desktops, "users": [user]})
        };
        assert_eq!(told(&user(&ids[1..])), "");
        assert_eq!(
            told(&user(&ids)),
            "Desktops: users[0].desktops: expected at most 1000 elements"
        );
        let desktops: Vec<_> = (0..=MOST).map(desktop).collect();
        assert_eq!(
            told(&json!({ "desktops": desktops })),
            "Desktops: desktops: expected at most 100000 elements"
        );
    }
}

//! The query of a WebSocket's address.

/// What the query of a WebSocket's address says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) token: Option<String>,
    /// 1 unless `ver` says more; from 2 on the client answers Pings.
    pub(crate) version: u32,
}

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        let mut parsed = Self {
            token: None,
            version: 1,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "token" => parsed.token = Some(value.into_owned()),
                "ver" => parsed.version = value.parse().unwrap_or(1),
                _ => {}
            }
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_read_in_any_order() {
        let query = Query::parse("token=a-b_c&ver=2");
        assert_eq!(query.token.as_deref(), Some("a-b_c"));
        assert_eq!(query.version, 2);
        assert_eq!(Query::parse("ver=x&token=5900").version, 1);
        assert_eq!(Query::parse("token=%35900").token.as_deref(), Some("5900"));
        assert_eq!(Query::parse("").token, None);
    }
}

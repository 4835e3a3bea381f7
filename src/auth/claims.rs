//! The claims of Jitsi's tokens.

use serde_json::{Map, Value};

use crate::domain::scope::Scopes;

/// The claims of a token that usher reads. All are optional; a claim of the wrong type counts as missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims {
    /// `iss`: the issuer.
    pub iss: Option<String>,
    /// `sub`: the tenant or the domain it is for.
    pub sub: Option<String>,
    /// `room`: the room it is for, a pattern, or `*`.
    pub room: Option<String>,
    /// `context`.
    pub context: Context,
    /// Whether the token has none of `room`, `sub` and `context`, as the tokens of services.
    pub has_no_user_claims: bool,
    /// `scope`: what a service may do; `None` if the token has no such claim.
    pub scope: Option<Scopes>,
}

/// The claim `context`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    /// `context.user`.
    pub user: User,
    /// `context.group`.
    pub group: Option<String>,
    /// `context.room.regex`: whether the claim `room` is a pattern. `true` or `"true"`.
    pub room_is_regex: bool,
    /// `context.features`, as it is.
    pub features: Map<String, Value>,
}

/// The claim `context.user`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user's id in the system that issued the token.
    pub id: Option<String>,
    /// The user's e-mail address.
    pub email: Option<String>,
    /// The display name.
    pub name: Option<String>,
    /// `visitor`, or another role.
    pub role: Option<String>,
    /// Whether the user is a moderator: `true` or `"true"`.
    pub moderator: bool,
}

impl Claims {
    pub(super) fn read(claims: &Map<String, Value>) -> Self {
        let context = object(claims, "context");
        let user = object(&context, "user");
        Self {
            iss: text(claims, "iss"),
            sub: text(claims, "sub"),
            room: text(claims, "room"),
            has_no_user_claims: ["room", "sub", "context"]
                .iter()
                .all(|name| !claims.contains_key(*name)),
            scope: claims.get("scope").map(scopes),
            context: Context {
                user: User {
                    // Some issuers number their users.
                    id: text(&user, "id").or_else(|| user.get("id").and_then(whole_number)),
                    email: text(&user, "email"),
                    name: text(&user, "name"),
                    role: text(&user, "role"),
                    moderator: flag(&user, "moderator"),
                },
                group: text(&context, "group"),
                room_is_regex: flag(&object(&context, "room"), "regex"),
                features: object(&context, "features"),
            },
        }
    }
}

fn text(map: &Map<String, Value>, name: &str) -> Option<String> {
    map.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// A whole number as a text: some issuers write `1001.0`.
fn whole_number(value: &Value) -> Option<String> {
    let float = value.as_f64()?;
    match value.as_i64() {
        Some(whole) => Some(whole.to_string()),
        // All whole numbers below 2^53 are exact in an f64.
        None => (float.fract() == 0.0 && float.abs() < 9e15).then(|| (float as i64).to_string()),
    }
}

fn object(map: &Map<String, Value>, name: &str) -> Map<String, Value> {
    map.get(name)
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

/// A list in one text (RFC 8693, section 4.2), or an array, as some issuers write it. Of any other type: no scope,
/// since a scope that can't be read must not allow everything.
fn scopes(claim: &Value) -> Scopes {
    match claim {
        Value::String(list) => Scopes::of_list(list),
        Value::Array(names) => {
            let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
            Scopes::of_list(&names.join(" "))
        }
        _ => Scopes::NONE,
    }
}

fn flag(map: &Map<String, Value>, name: &str) -> bool {
    match map.get(name) {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => text == "true",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Claims {
        Claims::read(value.as_object().unwrap())
    }

    #[test]
    fn an_unreadable_scope_allows_nothing() {
        assert_eq!(claims(&json!({})).scope, None);
        let read = |scope: Value| claims(&json!({ "scope": scope })).scope.unwrap();
        let two = Scopes::of_list("queue metrics");
        assert_eq!(read(json!("queue metrics")), two);
        assert_eq!(read(json!(["queue", "metrics"])), two);
        for scope in [json!(null), json!(""), json!(7), json!({}), json!("openid")] {
            assert_eq!(read(scope.clone()), Scopes::NONE, "{scope}");
        }
    }

    #[test]
    fn a_whole_number_is_an_id_without_a_fraction() {
        for (id, text) in [
            (json!(1001), "1001"),
            (json!(1001.0), "1001"),
            (json!(-7.0), "-7"),
            (json!("1001.0"), "1001.0"),
        ] {
            let read = claims(&json!({"context": {"user": {"id": id}}}));
            assert_eq!(read.context.user.id.as_deref(), Some(text));
        }
    }
}

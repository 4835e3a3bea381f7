//! One value as it was given, and the error of its deserialization.
//!
//! The deserializers of `toml` and `serde` repeat a value of a wrong type in their errors. It may be a secret,
//! so [`Input`] deserializes with an error type of its own, which names types only.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

/// Why a value is not accepted: what is wrong, without a full stop, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) message: String,
    pub(super) hint: String,
}

impl Invalid {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: hint.into(),
        }
    }

    fn wrong_type(given: &str, required: &str, hint: &str) -> Self {
        Self::new(
            format!("is of type {given}, but {required} is required"),
            hint,
        )
    }
}

/// Message and hint on a line each, as [`de::Error::custom`] reads them.
impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.message, self.hint)
    }
}

impl std::error::Error for Invalid {}

impl de::Error for Invalid {
    fn custom<T: fmt::Display>(text: T) -> Self {
        let text = text.to_string();
        let (message, hint) = text.split_once('\n').unwrap_or((&text, "Correct it."));
        Self::new(message, hint)
    }

    fn invalid_type(given: Unexpected<'_>, required: &dyn Expected) -> Self {
        let given = match given {
            Unexpected::Bool(_) => "boolean",
            Unexpected::Signed(_) | Unexpected::Unsigned(_) => "integer",
            Unexpected::Float(_) => "float",
            // `i128` reports itself here, with the value.
            Unexpected::Other(name) if name.starts_with("integer") => "integer",
            Unexpected::Other(name) => name,
            _ => "string",
        };
        match required.to_string().as_str() {
            "a boolean" => Self::wrong_type(
                given,
                "true or false",
                "Write true or false, without quotes.",
            ),
            "i128" => Self::wrong_type(
                given,
                "a whole number",
                "Write it in digits, without quotes.",
            ),
            "a duration" => {
                Self::wrong_type(given, "a duration", "Write it like \"15s\" or \"1h30m\".")
            }
            "a string" => Self::wrong_type(given, "a string", "Write it in quotes."),
            other => Self::wrong_type(given, other, "Correct it."),
        }
    }

    fn invalid_value(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::new("is out of range", "Write a number of fewer digits.")
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let names: Vec<String> = expected.iter().map(|name| format!("{name:?}")).collect();
        Self::new(
            format!("{variant:?} is not one of the choices"),
            format!("Write {}.", names.join(" or ")),
        )
    }
}

/// A value as it was given.
#[derive(Clone)]
pub(super) enum Input<'i> {
    /// A value of the file, or a part of one.
    Toml(DeValue<'i>),
    /// The text of a variable. The type that it is deserialized to decides how it is read.
    Variable(&'i str),
}

impl<'i> Input<'i> {
    pub(super) fn decode<T: DeserializeOwned>(self) -> Result<T, Invalid> {
        T::deserialize(self)
    }

    /// The entries of a list; a variable writes it as `a,b` or in TOML.
    pub(super) fn list(self) -> Result<DeArray<'i>, Invalid> {
        match self {
            Self::Toml(DeValue::Array(array)) => Ok(array),
            Self::Toml(other) => Err(Invalid::wrong_type(
                other.type_str(),
                "a list",
                "Write a list: [\"a\", \"b\"].",
            )),
            Self::Variable(text) if text.trim_start().starts_with('[') => match toml_value(text) {
                Some(DeValue::Array(array)) => Ok(array),
                _ => Err(Invalid::new(
                    "is not a list",
                    "Write a,b or [\"a\", \"b\"].",
                )),
            },
            Self::Variable(text) => {
                let entries = text.split(',').map(str::trim).filter(|it| !it.is_empty());
                let values = entries.map(|it| Spanned::new(0..0, DeValue::String(it.into())));
                Ok(values.collect())
            }
        }
    }

    /// The same; a value of the file that is no list counts as the only entry of one.
    pub(super) fn list_or_one(self) -> Result<DeArray<'i>, Invalid> {
        match self {
            Self::Toml(value) if !value.is_array() => {
                Ok([Spanned::new(0..0, value)].into_iter().collect())
            }
            other => other.list(),
        }
    }

    /// The entries of a table; a variable writes it in TOML.
    pub(super) fn table(self) -> Result<DeTable<'i>, Invalid> {
        match self {
            Self::Toml(DeValue::Table(table)) => Ok(table),
            Self::Toml(other) => Err(Invalid::wrong_type(
                other.type_str(),
                "a table",
                "Write { name = \"value\" }.",
            )),
            Self::Variable(text) => match toml_value(text) {
                Some(DeValue::Table(table)) => Ok(table),
                _ => Err(Invalid::new(
                    "is not a table",
                    "Write { name = \"value\" }.",
                )),
            },
        }
    }
}

fn toml_value(text: &str) -> Option<DeValue<'_>> {
    DeValue::parse(text.trim()).ok().map(Spanned::into_inner)
}

fn visit_integer<'de, V: Visitor<'de>>(
    integer: &DeInteger<'_>,
    visitor: V,
) -> Result<V::Value, Invalid> {
    match i128::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) => visitor.visit_i128(number),
        Err(_) => Err(de::Error::invalid_value(
            Unexpected::Other("integer"),
            &visitor,
        )),
    }
}

impl<'de> Deserializer<'de> for Input<'_> {
    type Error = Invalid;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        match self {
            Self::Variable(text) => visitor.visit_str(text),
            Self::Toml(DeValue::String(text)) => visitor.visit_str(&text),
            Self::Toml(DeValue::Boolean(flag)) => visitor.visit_bool(flag),
            Self::Toml(DeValue::Integer(integer)) => visit_integer(&integer, visitor),
            Self::Toml(other) => Err(de::Error::invalid_type(
                Unexpected::Other(other.type_str()),
                &visitor,
            )),
        }
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        match self {
            Self::Variable(text) => match toml_value(text) {
                Some(DeValue::Integer(integer)) => visit_integer(&integer, visitor),
                _ => Err(Invalid::new("is not a whole number", "Write it in digits.")),
            },
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Invalid> {
        match self {
            Self::Variable(text) => match toml_value(text) {
                Some(DeValue::Boolean(flag)) => visitor.visit_bool(flag),
                // As docker-jitsi-meet's variables are written.
                Some(DeValue::Integer(digit)) if digit.as_str() == "1" => visitor.visit_bool(true),
                Some(DeValue::Integer(digit)) if digit.as_str() == "0" => visitor.visit_bool(false),
                _ => Err(Invalid::new(
                    "is neither true nor false",
                    "Write true or false.",
                )),
            },
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Invalid> {
        let text: String = self.decode()?;
        let text: StrDeserializer<'_, Invalid> = text.as_str().into_deserializer();
        text.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq newtype_struct tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
        Input::Toml(toml_value(text).unwrap()).decode()
    }

    fn variable<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
        Input::Variable(text).decode()
    }

    #[test]
    fn value_of_a_wrong_type_is_reported_by_its_type_and_never_repeated() {
        let wrong =
            |given: &str, required: &str, hint: &str| Invalid::wrong_type(given, required, hint);
        let string = |given| wrong(given, "a string", "Write it in quotes.");
        let number = |given| {
            wrong(
                given,
                "a whole number",
                "Write it in digits, without quotes.",
            )
        };
        let flag = |given| {
            wrong(
                given,
                "true or false",
                "Write true or false, without quotes.",
            )
        };
        assert_eq!(file::<String>("8675309"), Err(string("integer")));
        assert_eq!(file::<String>("8675309.5"), Err(string("float")));
        assert_eq!(file::<String>("true"), Err(string("boolean")));
        assert_eq!(file::<String>("2020-01-01"), Err(string("datetime")));
        assert_eq!(file::<String>("[8675309]"), Err(string("array")));
        assert_eq!(file::<String>("{ a = 8675309 }"), Err(string("table")));
        assert_eq!(file::<i128>("\"8675309\""), Err(number("string")));
        assert_eq!(file::<i128>("1.5"), Err(number("float")));
        assert_eq!(file::<bool>("\"yes\""), Err(flag("string")));
        let list = |text: &str| Input::Toml(toml_value(text).unwrap()).list().unwrap_err();
        assert_eq!(
            list("8675309"),
            wrong("integer", "a list", "Write a list: [\"a\", \"b\"].")
        );
        let table = |text: &str| Input::Toml(toml_value(text).unwrap()).table().unwrap_err();
        assert_eq!(
            table("[]"),
            wrong("array", "a table", "Write { name = \"value\" }.")
        );
    }

    #[test]
    fn variable_is_read_as_the_type_that_is_required() {
        assert_eq!(variable::<String>("8675309"), Ok("8675309".to_owned()));
        assert_eq!(variable::<i128>(" 12 "), Ok(12));
        for (text, flag) in [("true", true), ("false", false), ("1", true), ("0", false)] {
            assert_eq!(variable::<bool>(text), Ok(flag), "{text}");
        }
        for text in ["many", "", "1.5"] {
            let error = variable::<i128>(text).unwrap_err();
            assert_eq!(
                error,
                Invalid::new("is not a whole number", "Write it in digits.")
            );
        }
        let error = variable::<bool>("yes").unwrap_err();
        assert_eq!(
            error,
            Invalid::new("is neither true nor false", "Write true or false.")
        );
        let entries = |text| Input::Variable(text).list().map(|list| list.len());
        assert_eq!(entries("a, b,"), Ok(2));
        assert_eq!(entries("[\"a,b\"]"), Ok(1));
        assert_eq!(entries(""), Ok(0));
        assert!(entries("[a").unwrap_err().hint.contains("a,b"));
        let table = |text| Input::Variable(text).table().map(|table| table.len());
        assert_eq!(table("{ a = 1 }"), Ok(1));
        assert!(table("k1=a").unwrap_err().hint.contains("{ name"));
    }

    #[test]
    fn number_beyond_any_integer_is_out_of_range() {
        let digits = "9".repeat(60);
        assert_eq!(
            file::<i128>(&digits).unwrap_err().message,
            "is out of range"
        );
    }
}

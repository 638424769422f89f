//! Values of a metric's label, each known by its name in the code.

/// A set of values of one label.
pub trait Label: Copy + Eq + Ord + Send + Sync + 'static {
    /// All of them: each is shown as 0 before it is counted, as a rate needs a first sample.
    const ALL: &'static [Self];

    /// How metrics spell it.
    fn text(self) -> &'static str;
}

/// Makes an enum without fields a [`Label`](crate::label::Label): a variant without text is none.
#[macro_export]
macro_rules! labels {
    (
        $(#[$about:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$about_variant:meta])* $variant:ident => $text:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visibility enum $name {
            $($(#[$about_variant])* $variant,)+
        }

        impl $crate::label::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    labels! {
        enum Fruit {
            Apple => "apple",
            SourCherry => "sour cherry",
        }
    }

    #[test]
    fn every_variant_has_its_text() {
        let texts: Vec<_> = Fruit::ALL.iter().map(|fruit| fruit.text()).collect();
        assert_eq!(texts, ["apple", "sour cherry"]);
    }
}

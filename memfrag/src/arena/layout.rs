//! Where a type's own padding is.

use std::fmt;

/// A field of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Bytes from the value's beginning.
    pub offset: usize,
    /// Bytes that it has.
    pub size: usize,
    /// Its alignment.
    pub align: usize,
}

impl Field {
    /// A field of a type, told by how it is reached; for [`struct_layout!`](crate::struct_layout).
    pub const fn of<T, F>(name: &'static str, offset: usize, _reach: fn(&T) -> &F) -> Self {
        Self { name, offset, size: size_of::<F>(), align: align_of::<F>() }
    }
}

/// How a type's fields lie, and what lies between them. [`struct_layout!`](crate::struct_layout) makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StructLayout {
    /// The type's name.
    pub name: &'static str,
    /// Bytes of a value.
    pub size: usize,
    /// The type's alignment.
    pub align: usize,
    /// The fields, by offset.
    pub fields: Vec<Field>,
}

impl StructLayout {
    /// Of a type with these fields.
    pub fn new<T>(name: &'static str, mut fields: Vec<Field>) -> Self {
        fields.sort_by_key(|field| (field.offset, field.size));
        Self { name, size: size_of::<T>(), align: align_of::<T>(), fields }
    }

    /// Each field with the padding before it.
    pub fn padded(&self) -> impl Iterator<Item = (usize, &Field)> {
        let mut end = 0;
        self.fields.iter().map(move |field| {
            let padding = field.offset.saturating_sub(end);
            end = end.max(field.offset + field.size);
            (padding, field)
        })
    }

    /// Padding behind the last field.
    pub fn tail(&self) -> usize {
        self.size - self.fields.iter().map(|field| field.offset + field.size).max().unwrap_or(0)
    }

    /// Bytes of fields among all, 1 for a type without bytes.
    pub fn efficiency(&self) -> f64 {
        let padding: usize = self.padded().map(|(padding, _)| padding).sum::<usize>() + self.tail();
        if self.size == 0 { 1.0 } else { (self.size - padding) as f64 / self.size as f64 }
    }
}

impl fmt::Display for StructLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, size, align, .. } = self;
        writeln!(f, "{name}: {size} bytes aligned to {align}, {:.0} % of them fields", self.efficiency() * 100.0)?;
        for (padding, field) in self.padded() {
            if padding > 0 {
                writeln!(f, "  {:>6}  {:>6}  padding", field.offset - padding, padding)?;
            }
            writeln!(f, "  {:>6}  {:>6}  {} (aligned to {})", field.offset, field.size, field.name, field.align)?;
        }
        match self.tail() {
            0 => Ok(()),
            tail => writeln!(f, "  {:>6}  {tail:>6}  padding", size - tail),
        }
    }
}

/// How a type's fields lie and what lies between them, as a `StructLayout`.
///
/// ```
/// #[repr(C)]
/// struct Message { urgent: bool, length: u64, kind: u16 }
///
/// let layout = memfrag::struct_layout!(Message { urgent, length, kind });
/// assert_eq!((layout.size, layout.tail()), (24, 6));
/// assert_eq!(layout.padded().map(|(padding, _)| padding).sum::<usize>(), 7);
/// ```
#[macro_export]
macro_rules! struct_layout {
    ($type:ty { $($field:ident),* $(,)? }) => {
        $crate::arena::StructLayout::new::<$type>(
            stringify!($type),
            vec![$($crate::arena::Field::of::<$type, _>(
                stringify!($field),
                ::core::mem::offset_of!($type, $field),
                |value| &value.$field,
            )),*],
        )
    };
}

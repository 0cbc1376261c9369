//! An `INSERT` of one or several rows, executed when all its rows are bound.
//!
//! Binding costs a call per value: a parameter that already has the value is not bound again.

use rusqlite::CachedStatement;
use rusqlite::types::{Null, ToSqlOutput, ValueRef};

use super::value::Value;

/// A statement and the values of its parameters.
pub(crate) struct Insert<'c, 'a> {
    statement: CachedStatement<'c>,
    /// None until the parameter is bound for the first time.
    bound: Vec<Option<Value<'a>>>,
    /// The next parameter, from 0.
    next: usize,
}

impl<'c, 'a> Insert<'c, 'a> {
    pub(crate) fn new(statement: CachedStatement<'c>, parameters: usize) -> Self {
        Self { statement, bound: vec![None; parameters], next: 0 }
    }

    /// Whether the next parameter has this value already.
    pub(crate) fn is_bound(&self, value: Value<'a>) -> bool {
        self.bound[self.next] == Some(value)
    }

    /// Binds the next parameter; a name is bound as its number.
    pub(crate) fn bind(&mut self, value: Value<'a>, number: Option<i64>) -> rusqlite::Result<()> {
        if !self.is_bound(value) {
            self.bound[self.next] = Some(value);
            let position = self.next + 1;
            match (value, number) {
                (Value::Null, _) => self.statement.raw_bind_parameter(position, Null)?,
                (Value::Int(number), _) | (Value::Name(_), Some(number)) => {
                    self.statement.raw_bind_parameter(position, number)?;
                }
                (Value::Text(text), _) => {
                    let text = ToSqlOutput::Borrowed(ValueRef::Text(text));
                    self.statement.raw_bind_parameter(position, text)?;
                }
                (Value::Blob(bytes), _) => {
                    let bytes = ToSqlOutput::Borrowed(ValueRef::Blob(bytes));
                    self.statement.raw_bind_parameter(position, bytes)?;
                }
                (Value::Name(text), None) => self.statement.raw_bind_parameter(position, text)?,
            }
        }
        self.next += 1;
        Ok(())
    }

    /// Inserts once all its rows are bound.
    pub(crate) fn execute_if_full(&mut self) -> rusqlite::Result<()> {
        if self.next == self.bound.len() {
            self.next = 0;
            self.statement.raw_execute()?;
        }
        Ok(())
    }
}

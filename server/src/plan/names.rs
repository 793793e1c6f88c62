//! The names of a query's columns, as PostgreSQL gives them.
//!
//! An item of a SELECT without a name is called after what it is: `count` for `count(*)`, the column for a cast of it,
//! `?column?` where nothing fits. Names are given in the tree, before planning, to every SELECT of a statement, so that
//! `SELECT count FROM (SELECT count(*) FROM t) x` finds its column.
//!
//! PostgreSQL lets two columns of a result have one name, DataFusion does not. A repeated name is planned with a mark after it, which
//! [`shown`] takes away where the result leaves the server.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, DataType, Expr, Function, Ident, ObjectName, ObjectNamePart,
    Query, Select, SelectItem, SetExpr, Statement, TimezoneInfo, TrimWhereField, VisitMut,
    VisitorMut, With,
};

use super::forms::is_function_without_parentheses;
use crate::sql::fold;
use crate::sql::pieces::{empty_select, query_of, take};

/// Between a name and what makes it unique. No name that a client types holds it.
const MARK: char = '\u{1}';

/// The columns that every stored relation has without naming them.
pub const SYSTEM_COLUMNS: [&str; 5] = ["tableoid", "xmin", "xmax", "cmin", "cmax"];

/// Names the items of every SELECT in a statement. True if a name may still be there twice, because `*` stands beside
/// other items: then [`number_beside_wildcards`] helps.
pub fn name_items(statement: &mut Statement) -> bool {
    let mut namer = Namer { depth: 0, beside_wildcards: false };
    let _ = statement.visit(&mut namer);
    namer.beside_wildcards
}

/// Marks the items beside `*` whose name `*` gives, too. `columns` names the columns of a query; `None` if it cannot be planned by itself: then
/// every item beside `*` is marked.
pub fn number_beside_wildcards(
    statement: &mut Statement,
    columns: &dyn Fn(Query) -> Option<HashSet<String>>,
) {
    let _ = statement.visit(&mut BesideWildcards { columns, around: Vec::new() });
}

/// A column's name as clients see it.
pub fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// A result's columns as clients see them.
pub fn shown_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_name(shown(field.name())))
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The name that PostgreSQL gives an expression in a SELECT.
pub fn column_name(expr: &Expr) -> String {
    match named(expr) {
        Some(Named { name, .. }) => name,
        None => "?column?".to_string(),
    }
}

struct BesideWildcards<'a> {
    columns: &'a dyn Fn(Query) -> Option<HashSet<String>>,
    /// What WITH says in the queries around, outermost first.
    around: Vec<Option<With>>,
}

impl VisitorMut for BesideWildcards<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // What WITH names is finished before the SELECTs that read it.
        let mut with = query.with.take();
        let _ = with.visit(self);
        self.around.push(with);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        query.with = self.around.pop().flatten();
        ControlFlow::Continue(())
    }

    /// After the queries in FROM.
    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let items = &select.projection;
        if items.len() < 2 || !items.iter().any(is_wildcard) {
            return ControlFlow::Continue(());
        }
        let of_wildcards = (self.columns)(self.wildcards_of(select));
        let mut taken = of_wildcards.clone().unwrap_or_default();
        taken.extend(select.projection.iter().filter_map(item_name));
        for item in &mut select.projection {
            let Some(name) = item_name(item) else { continue };
            if of_wildcards.as_ref().is_some_and(|columns| !columns.contains(&name)) {
                continue;
            }
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                let alias = Ident::with_quote('"', unique(shown(&name), &mut taken));
                *item = SelectItem::ExprWithAlias { expr: take(expr), alias };
            }
        }
        ControlFlow::Continue(())
    }
}

impl BesideWildcards<'_> {
    /// `SELECT *` of what a SELECT reads.
    fn wildcards_of(&self, select: &Select) -> Query {
        let mut query = query_of(Select {
            projection: select
                .projection
                .iter()
                .filter(|item| is_wildcard(item))
                .cloned()
                .collect(),
            from: select.from.clone(),
            ..empty_select()
        });
        for with in self.around.iter().rev().flatten() {
            // A query in parentheses has its own WITH.
            if query.with.is_some() {
                let body = Box::new(SetExpr::Query(Box::new(query)));
                query = Query { body, ..query_of(empty_select()) };
            }
            query.with = Some(with.clone());
        }
        query
    }
}

/// The name of an item that is no wildcard.
fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => Some(column_name(expr)),
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        _ => None,
    }
}

struct Namer {
    /// How many queries stand around.
    depth: usize,
    beside_wildcards: bool,
}

impl VisitorMut for Namer {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let items = &mut select.projection;
        self.beside_wildcards |= items.len() > 1 && items.iter().any(is_wildcard);
        // Given names first, then columns, then what is named here: those that come later get the mark.
        let mut taken: HashSet<String> = HashSet::new();
        let mut columns: HashSet<Vec<String>> = HashSet::new();
        for item in items.iter_mut() {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                let name = fold(alias);
                if !taken.insert(name.clone()) {
                    *alias = Ident::with_quote('"', unique(&name, &mut taken));
                }
            }
        }
        let given = taken.clone();
        for item in items.iter_mut() {
            if let SelectItem::UnnamedExpr(expr) = item
                && let Some(path) = plain_column(expr)
            {
                let name = path.last().cloned().unwrap_or_default();
                // Columns of two tables are told apart by their tables, as long as nothing stands around.
                let told_apart = columns.insert(path.clone())
                    && self.depth <= 1
                    && path.len() > 1
                    && !given.contains(&name)
                    && columns
                        .iter()
                        .filter(|other| other.last() == Some(&name))
                        .all(|other| other.len() > 1);
                if !taken.insert(name.clone()) && !told_apart {
                    let alias = Ident::with_quote('"', unique(&name, &mut taken));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        for item in items.iter_mut() {
            if let SelectItem::UnnamedExpr(expr) = item
                && plain_column(expr).is_none()
            {
                let name = column_name(expr);
                let name =
                    if taken.insert(name.clone()) { name } else { unique(&name, &mut taken) };
                let alias = Ident::with_quote('"', name);
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }
}

fn unique(name: &str, taken: &mut HashSet<String>) -> String {
    let mut number = 2;
    loop {
        let candidate = format!("{name}{MARK}{number}");
        if taken.insert(candidate.clone()) {
            return candidate;
        }
        number += 1;
    }
}

fn is_wildcard(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

/// The path of a column that has its name by itself.
fn plain_column(expr: &Expr) -> Option<Vec<String>> {
    let path = match expr {
        // They look like columns, and are calls.
        Expr::Identifier(ident) if is_function_without_parentheses(ident) => return None,
        Expr::Identifier(ident) => vec![fold(ident)],
        Expr::CompoundIdentifier(parts) => parts.iter().map(fold).collect(),
        _ => return None,
    };
    let is_system = path.last().is_some_and(|name| SYSTEM_COLUMNS.contains(&name.as_str()));
    (!is_system).then_some(path)
}

/// A name, and whether it gives way to that of what stands around: so is a type's name, and `case`.
struct Named {
    name: String,
    weak: bool,
}

fn strong(name: impl Into<String>) -> Option<Named> {
    Some(Named { name: name.into(), weak: false })
}

fn weak(name: impl Into<String>) -> Option<Named> {
    Some(Named { name: name.into(), weak: true })
}

/// PostgreSQL's FigureColname.
fn named(expr: &Expr) -> Option<Named> {
    match expr {
        Expr::Identifier(ident) => strong(fold(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().and_then(|ident| strong(fold(ident))),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => named(inner),
        Expr::CompoundFieldAccess { root, access_chain } => access_chain
            .iter()
            .rev()
            .find_map(|access| match access {
                AccessExpr::Dot(expr) => named(expr),
                AccessExpr::Subscript(_) => None,
            })
            .or_else(|| named(root)),
        Expr::Function(function) => strong(function_name(function)?),
        Expr::Cast { expr: inner, data_type, .. } => match named(inner) {
            Some(name) if !name.weak => Some(name),
            other => weak(type_name(data_type)).or(other),
        },
        Expr::TypedString(typed) => weak(type_name(&typed.data_type)),
        Expr::Interval(_) => weak("interval"),
        Expr::Case { else_result, .. } => {
            match else_result.as_deref().and_then(named).filter(|name| !name.weak) {
                Some(name) => Some(name),
                None => weak("case"),
            }
        }
        Expr::Exists { negated: false, .. } => strong("exists"),
        Expr::Subquery(query) => first_column(&query.body),
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) => strong("row"),
        Expr::Extract { .. } => strong("extract"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            Some(TrimWhereField::Both) | None => "btrim",
        }),
        Expr::Substring { shorthand, .. } => {
            strong(if *shorthand { "substr" } else { "substring" })
        }
        Expr::Position { .. } => strong("position"),
        Expr::Overlay { .. } => strong("overlay"),
        _ => None,
    }
}

fn function_name(function: &Function) -> Option<String> {
    function.name.0.last().and_then(ObjectNamePart::as_ident).map(fold)
}

fn first_column(body: &SetExpr) -> Option<Named> {
    match body {
        SetExpr::Select(select) => match select.projection.first()? {
            SelectItem::UnnamedExpr(expr) => named(expr),
            SelectItem::ExprWithAlias { alias, .. } => strong(shown(&fold(alias))),
            _ => None,
        },
        SetExpr::SetOperation { left, .. } => first_column(left),
        SetExpr::Query(query) => first_column(&query.body),
        SetExpr::Values(_) => strong("column1"),
        _ => None,
    }
}

/// PostgreSQL's own name of a type, as pg_type has it.
fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean | DataType::Bool => "bool",
        DataType::SmallInt(_) | DataType::Int2(_) | DataType::TinyInt(_) => "int2",
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) | DataType::MediumInt(_) => {
            "int4"
        }
        DataType::BigInt(_) | DataType::Int8(_) => "int8",
        DataType::Real | DataType::Float4 => "float4",
        DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 => "float8",
        DataType::Float(sqlparser::ast::ExactNumberInfo::Precision(bits)) if *bits <= 24 => {
            "float4"
        }
        DataType::Float(_) => "float8",
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => "numeric",
        DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_) => {
            "varchar"
        }
        DataType::Char(_) | DataType::Character(_) => "bpchar",
        DataType::Text => "text",
        DataType::Bytea => "bytea",
        DataType::Uuid => "uuid",
        DataType::JSON => "json",
        DataType::JSONB => "jsonb",
        DataType::Date => "date",
        DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => "time",
        DataType::Time(..) => "timetz",
        DataType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => "timestamp",
        DataType::Timestamp(..) => "timestamptz",
        DataType::Interval { .. } => "interval",
        DataType::Regclass => "regclass",
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::AngleBracket(element)
            | ArrayElemTypeDef::Parenthesis(element),
        ) => return type_name(element),
        DataType::Custom(name, _) => return last_part(name),
        other => return other.to_string().to_lowercase(),
    };
    name.to_string()
}

fn last_part(name: &ObjectName) -> String {
    name.0.last().and_then(ObjectNamePart::as_ident).map(fold).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sql: &str) -> Vec<String> {
        let body = crate::sql::parse_query(sql).unwrap();
        let mut statement = Statement::Query(body.query);
        name_items(&mut statement);
        let Statement::Query(query) = statement else { panic!("a query stays one") };
        let SetExpr::Select(select) = *query.body else { panic!("{sql} is a SELECT") };
        select
            .projection
            .iter()
            .map(|item| match item {
                SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
                SelectItem::UnnamedExpr(expr) => column_name(expr),
                other => other.to_string(),
            })
            .collect()
    }

    /// Each pair was read off a PostgreSQL 15.
    #[test]
    fn items_are_named_as_postgresql_names_them() {
        for (item, name) in [
            ("1", "?column?"),
            ("'x'", "?column?"),
            ("NULL", "?column?"),
            ("true", "?column?"),
            ("a", "a"),
            ("t.a", "a"),
            ("a + 1", "?column?"),
            ("-a", "?column?"),
            ("a::int", "a"),
            ("'1'::int", "int4"),
            ("1::numeric(4,2)", "numeric"),
            ("CAST(now() AS date)", "now"),
            ("CAST(1 AS double precision)", "float8"),
            ("'a'::varchar(3)", "varchar"),
            ("'{1}'::int[]", "int4"),
            ("date '2020-01-01'", "date"),
            ("interval '1 day'", "interval"),
            ("count(*)", "count"),
            ("pg_catalog.max(a)", "max"),
            ("CASE WHEN a THEN 1 END", "case"),
            ("CASE WHEN a THEN 1 ELSE b END", "b"),
            ("CASE WHEN a THEN 1 ELSE 2::int END", "case"),
            ("coalesce(a, 1)", "coalesce"),
            ("nullif(a, 1)", "nullif"),
            ("EXISTS (SELECT 1)", "exists"),
            ("(SELECT max(a) FROM t)", "max"),
            ("(SELECT 1)", "?column?"),
            ("ARRAY[1, 2]", "array"),
            ("extract(year FROM a)", "extract"),
            ("trim(a)", "btrim"),
            ("trim(leading 'x' FROM a)", "ltrim"),
            ("substring(a FROM 1)", "substring"),
            ("position('a' IN b)", "position"),
            ("overlay(a placing 'b' FROM 1)", "overlay"),
            ("a AT TIME ZONE 'UTC'", "timezone"),
            ("a IS NULL", "?column?"),
            ("a LIKE 'x'", "?column?"),
            ("current_date", "current_date"),
        ] {
            assert_eq!(names(&format!("SELECT {item} FROM t")), [name], "{item}");
        }
    }

    #[test]
    fn a_repeated_name_has_a_mark_that_is_not_shown() {
        let found = names("SELECT 1, 2, a, a, b AS a, count(*), count(b)");
        let distinct: HashSet<&String> = found.iter().collect();
        assert_eq!(distinct.len(), found.len());
        let shown: Vec<&str> = found.iter().map(|name| shown(name)).collect();
        assert_eq!(shown, ["?column?", "?column?", "a", "a", "a", "count", "count"]);
    }

    #[test]
    fn columns_of_two_tables_keep_their_tables() {
        assert_eq!(names("SELECT t.id, u.id FROM t, u"), ["id", "id"]);
    }
}

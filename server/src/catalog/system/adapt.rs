//! What PostgreSQL's clients write in catalog queries and DataFusion's planner does not take, as what it does take.
//!
//! A walk over the syntax tree, no text. Every rewrite keeps the statement's meaning, so that it does not matter whether a
//! statement is a client's or a user's:
//!
//! | written | planned |
//! | --- | --- |
//! | `pg_class` | `pg_catalog.pg_class`, as PostgreSQL's search path has it |
//! | `pg_catalog.f(x)` | `f(x)` |
//! | `a OPERATOR(pg_catalog.~) b` | `a ~ b` |
//! | `x COLLATE pg_catalog.default` | `x`: strings compare by their bytes anyway |
//! | `ARRAY(SELECT e ... ORDER BY o)` | `(SELECT array_agg(e ORDER BY o) ...)`, `{}` for no row |
//! | `x::regclass` | the OID, or the name where it is shown or made text |
//! | `x::pg_catalog.int4`, `::oid`, `::name`, `::"char"` | standard types |
//! | `'{a,b}'::text[]`, `= ANY ('{a,b}')` | an array |
//! | `coalesce(array, '{}')` | the array, or an empty one |
//! | `x LIKE p ESCAPE '/'` | `x LIKE like_escape(p, '/')` |
//! | `FROM generate_series(a, b) s`, `unnest(x) s` | `UNNEST(...) s (s)` |
//! | `c.tableoid`, `c.xmin` | the relation's OID, a constant: system columns of the system's relations |
//! | `(x).field` | `(x).'field'` |
//! | `con.confkey[1]` | the element of the column, not of a value called `con` |
//! | `indkey[0]` | `indkey[1]`: vectors of PostgreSQL's catalog count from 0 |

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, CastKind, DataType, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident, ObjectName,
    ObjectNamePart, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, Statement,
    Subscript, TableAlias, TableAliasColumnDef, TableFactor, Value, ValueWithSpan, VisitMut,
    VisitorMut,
};
use sqlparser::ast::{ArrayElemTypeDef, TableFunctionArgs};

use super::expand::EXPAND_ARRAY;
use super::functions::{NAME_ARRAY, OID_ARRAY, OR_EMPTY, REG_OID, REG_TEXT, TEXT_ARRAY};
use super::relations::{Kind, SystemSchema, array_items, column_kind, find};
use crate::plan::names::{SYSTEM_COLUMNS, column_name};
use crate::sql::pieces::{call, cast, empty_select, function, query_of, take};

/// Rewrites a statement as this module's table says. True if it names relations of the system catalog.
pub fn adapt(statement: &mut Statement) -> bool {
    let system = name_schemas(statement);
    if let Statement::Query(query) = statement {
        show(&mut query.body);
    }
    let _ = statement.visit(&mut Adapt { system, scopes: Vec::new() });
    system
}

/// As [`adapt`], for an expression that is shown to nobody.
pub fn adapt_expression(expression: &mut Expr) {
    let system = name_schemas(expression);
    let _ = expression.visit(&mut Adapt { system, scopes: Vec::new() });
}

/// Writes the schema before the names of system relations. Whether there are any.
fn name_schemas(tree: &mut impl VisitMut) -> bool {
    let mut names = CommonTables::default();
    let _ = tree.visit(&mut names);
    let mut relations = Relations { common_tables: names.0, found: false };
    let _ = tree.visit(&mut relations);
    relations.found
}

/// The names that WITH gives, which hide relations.
#[derive(Default)]
struct CommonTables(HashSet<String>);

impl VisitorMut for CommonTables {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.0.extend(
            query
                .with
                .iter()
                .flat_map(|with| &with.cte_tables)
                .map(|table| fold(&table.alias.name)),
        );
        ControlFlow::Continue(())
    }
}

/// Qualifies system relations and finds whether there are any.
struct Relations {
    common_tables: HashSet<String>,
    found: bool,
}

impl VisitorMut for Relations {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<()> {
        match identifiers(name).as_deref() {
            Some([relation]) => {
                if !self.common_tables.contains(relation)
                    && find(SystemSchema::PgCatalog, relation).is_some()
                {
                    name.0.insert(
                        0,
                        ObjectNamePart::Identifier(Ident::new(SystemSchema::PgCatalog.name())),
                    );
                    self.found = true;
                }
            }
            Some([.., schema, _]) => {
                self.found |= schema == SystemSchema::PgCatalog.name()
                    || schema == SystemSchema::InformationSchema.name();
            }
            Some([]) | None => {}
        }
        ControlFlow::Continue(())
    }
}

struct Adapt {
    /// The statement is over the system catalog.
    system: bool,
    /// The system relations in FROM of the SELECTs around: what they are called there, and their OIDs.
    scopes: Vec<Vec<(String, i64)>>,
}

impl VisitorMut for Adapt {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                set_of_rows(expr);
            }
        }
        let mut scope = Vec::new();
        for table in &select.from {
            scope.extend(called(&table.relation));
            scope.extend(table.joins.iter().filter_map(|join| called(&join.relation)));
        }
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &mut Select) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        // Before the parts, because a cast to text decides what a cast to a reg type under it means.
        if let Some(rewritten) = registered(expr) {
            *expr = rewritten;
        }
        if self.system
            && let Some(rewritten) = without_domains(expr)
        {
            *expr = rewritten;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::CompoundIdentifier(parts) => {
                if let [.., relation, column] = parts.as_slice()
                    && is_system_column(column)
                    && let Some(oid) = self.relation(&fold(relation))
                {
                    *expr = system_column(column, oid);
                }
            }
            Expr::Identifier(column) if is_system_column(column) => {
                // Without a qualifier it is clear only where there is one relation.
                if let Some([(_, oid)]) = self.scopes.last().map(Vec::as_slice) {
                    *expr = system_column(column, *oid);
                }
            }
            Expr::BinaryOp { left, op, right } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(plain) = operator(parts)
                {
                    *op = plain;
                }
                if matches!(op, BinaryOperator::Eq | BinaryOperator::NotEq) {
                    array_operand(left, right);
                    array_operand(right, left);
                }
            }
            Expr::Collate { expr: inner, collation } => {
                let name =
                    identifiers(collation).and_then(|mut parts| parts.pop()).unwrap_or_default();
                if matches!(name.as_str(), "default" | "C" | "c" | "POSIX" | "posix") {
                    *expr = take(inner);
                }
            }
            Expr::Function(function) => {
                unqualify(&mut function.name);
                if let Some(rewritten) = array_of_query(function) {
                    *expr = rewritten;
                } else if self.system
                    && let Some(rewritten) = or_empty(function)
                {
                    *expr = rewritten;
                } else if self.system
                    && let Some(array) = collected(function)
                {
                    // DataFusion's arrays forget what is special about their elements.
                    let elements = take(expr);
                    *expr = call(array, vec![elements]);
                }
            }
            Expr::Case { conditions, else_result, .. } if self.system => {
                let results = conditions.iter().map(|condition| &condition.result);
                if results.chain(else_result.as_deref()).any(is_oids) {
                    // A CASE forgets it too.
                    let case = take(expr);
                    *expr = call(OID_ARRAY, vec![case]);
                }
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                if let Some(escape) = escape_char.take() {
                    let old = take(pattern);
                    **pattern = call("like_escape", vec![old, Expr::Value(escape)]);
                }
            }
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr: inner,
                data_type,
                array: false,
                ..
            } => {
                if let Some(rewritten) = cast_to(inner, data_type) {
                    *expr = rewritten;
                }
            }
            Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } => {
                if let Some(text) = literal(right)
                    && array_items(text).is_some()
                {
                    let oids = matches!(
                        operand_kind(left),
                        Some(Kind::Oid(_) | Kind::Int2 | Kind::Int4 | Kind::Int8)
                    );
                    let array = take(right);
                    **right = call(if oids { OID_ARRAY } else { TEXT_ARRAY }, vec![array]);
                }
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                qualify(root, access_chain);
                for access in access_chain.iter_mut() {
                    if let AccessExpr::Dot(Expr::Identifier(field)) = access {
                        *access = AccessExpr::Dot(string(&fold(field)));
                    }
                }
                if matches!(
                    operand_kind(root),
                    Some(Kind::ListInt2("int2vector") | Kind::ListOid("oidvector"))
                ) && let Some(AccessExpr::Subscript(Subscript::Index { index })) =
                    access_chain.first_mut()
                {
                    let zero_based = std::mem::replace(index, number("1"));
                    *index = Expr::BinaryOp {
                        left: Box::new(Expr::Nested(Box::new(zero_based))),
                        op: BinaryOperator::Plus,
                        right: Box::new(number("1")),
                    };
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args: Some(args), with_ordinality: false, .. } =
            factor
        else {
            if let TableFactor::UNNEST { alias, array_exprs, .. } = factor
                && let [_] = array_exprs[..]
            {
                name_column(alias, "unnest");
            }
            return ControlFlow::Continue(());
        };
        let Some(function) = identifiers(name).and_then(|mut parts| parts.pop()) else {
            return ControlFlow::Continue(());
        };
        let arguments = arguments(args);
        let array = match (function.as_str(), arguments) {
            ("unnest", Some(arguments)) => match <[Expr; 1]>::try_from(arguments) {
                Ok([array]) => array,
                Err(_) => return ControlFlow::Continue(()),
            },
            ("generate_series", Some(arguments)) if arguments.len() <= 3 => {
                call("generate_series", arguments)
            }
            ("generate_subscripts", Some(arguments)) => match subscripts(arguments) {
                Some(series) => series,
                None => return ControlFlow::Continue(()),
            },
            (keywords, _)
                if find(SystemSchema::PgCatalog, keywords).is_some() && args.args.is_empty() =>
            {
                let mut relation =
                    ObjectName::from(vec![Ident::new(SystemSchema::PgCatalog.name())]);
                relation.0.push(ObjectNamePart::Identifier(Ident::new(keywords)));
                *name = relation;
                if let TableFactor::Table { args, .. } = factor {
                    *args = None;
                }
                return ControlFlow::Continue(());
            }
            _ => return ControlFlow::Continue(()),
        };
        name_column(alias, &function);
        *factor = TableFactor::UNNEST {
            alias: alias.take(),
            array_exprs: vec![array],
            with_offset: false,
            with_offset_alias: None,
            with_ordinality: false,
        };
        ControlFlow::Continue(())
    }
}

impl Adapt {
    /// The OID of the system relation of that name in FROM.
    fn relation(&self, name: &str) -> Option<i64> {
        self.scopes.iter().rev().flatten().find(|(called, _)| called == name).map(|(_, oid)| *oid)
    }
}

/// A system relation in FROM: what it is called, and its OID.
fn called(factor: &TableFactor) -> Option<(String, i64)> {
    let TableFactor::Table { name, alias, args: None, .. } = factor else {
        return None;
    };
    let parts = identifiers(name)?;
    let [.., schema, relation] = parts.as_slice() else {
        return None;
    };
    let schema = [SystemSchema::PgCatalog, SystemSchema::InformationSchema]
        .into_iter()
        .find(|found| found.name() == schema)?;
    let found = find(schema, relation)?;
    Some((alias.as_ref().map_or_else(|| relation.clone(), |alias| fold(&alias.name)), found.oid))
}

/// A column that every stored relation has without naming it.
fn is_system_column(column: &Ident) -> bool {
    SYSTEM_COLUMNS.contains(&fold(column).as_str())
}

fn system_column(column: &Ident, oid: i64) -> Expr {
    // 2 is PostgreSQL's frozen transaction id: the rows have always been there.
    let value = match fold(column).as_str() {
        "tableoid" => oid.to_string(),
        "xmin" => "2".to_string(),
        _ => "0".to_string(),
    };
    number(&value)
}

/// An identifier as PostgreSQL folds it.
fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// The parts of a name; `None` if one is not an identifier.
fn identifiers(name: &ObjectName) -> Option<Vec<String>> {
    name.0.iter().map(|part| part.as_ident().map(fold)).collect()
}

fn number(text: &str) -> Expr {
    Expr::Value(ValueWithSpan::from(Value::Number(text.to_string(), false)))
}

fn string(text: &str) -> Expr {
    Expr::Value(ValueWithSpan::from(Value::SingleQuotedString(text.to_string())))
}

fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Nested(inner) => literal(inner),
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text),
        _ => None,
    }
}

/// The plain arguments of a function in FROM.
fn arguments(args: &TableFunctionArgs) -> Option<Vec<Expr>> {
    args.args
        .iter()
        .map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect()
}

/// `generate_subscripts(array, 1)` as a series.
fn subscripts(arguments: Vec<Expr>) -> Option<Expr> {
    let [array, dimension] = <[Expr; 2]>::try_from(arguments).ok()?;
    // Vectors of the catalog count from 0.
    let from_zero = matches!(
        operand_kind(&array),
        Some(Kind::ListInt2("int2vector") | Kind::ListOid("oidvector"))
    );
    let length = cast(call("array_length", vec![array, dimension]), DataType::BigInt(None));
    Some(if from_zero {
        let last = Expr::BinaryOp {
            left: Box::new(length),
            op: BinaryOperator::Minus,
            right: Box::new(number("1")),
        };
        call("generate_series", vec![number("0"), last])
    } else {
        call("generate_series", vec![number("1"), length])
    })
}

/// Gives a function in FROM the column name that it has in PostgreSQL: that of its alias, or its own.
fn name_column(alias: &mut Option<TableAlias>, function: &str) {
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new(function),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
}

/// Removes the schema of a system function's name.
fn unqualify(name: &mut ObjectName) {
    if let Some([schema, _]) = identifiers(name).as_deref()
        && (schema == SystemSchema::PgCatalog.name()
            || schema == SystemSchema::InformationSchema.name())
    {
        name.0.remove(0);
    }
}

/// An operator written as `OPERATOR(schema.symbol)`.
fn operator(parts: &[String]) -> Option<BinaryOperator> {
    Some(match parts.last()?.as_str() {
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "||" => BinaryOperator::StringConcat,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "%" => BinaryOperator::Modulo,
        _ => return None,
    })
}

/// `con.confkey[1]` is an element of the relation's column; only `(x).field` is a field of a value.
fn qualify(root: &mut Expr, access_chain: &mut Vec<AccessExpr>) {
    let mut parts = match root {
        Expr::Identifier(ident) => vec![ident.clone()],
        Expr::CompoundIdentifier(parts) => parts.clone(),
        _ => return,
    };
    let is_name = |access: &AccessExpr| matches!(access, AccessExpr::Dot(Expr::Identifier(_)));
    // Something must be left that is looked into.
    while access_chain.len() > 1 && access_chain.first().is_some_and(is_name) {
        if let AccessExpr::Dot(Expr::Identifier(ident)) = access_chain.remove(0) {
            parts.push(ident);
        }
    }
    if parts.len() > 1 {
        *root = Expr::CompoundIdentifier(parts);
    }
}

/// The kind of a column of the system catalog, by its name.
fn operand_kind(expr: &Expr) -> Option<Kind> {
    column_kind(&column_of(expr)?)
}

/// The name of a column.
fn column_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(column) => Some(fold(column)),
        Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        Expr::Nested(inner) => column_of(inner),
        _ => None,
    }
}

/// `polroles = '{0}'`: the text is an array because the column is one.
fn array_operand(column: &Expr, value: &mut Expr) {
    if literal(value).and_then(array_items).is_none() {
        return;
    }
    let name = match operand_kind(column) {
        Some(Kind::ListText(_)) => TEXT_ARRAY,
        Some(Kind::ListOid(_) | Kind::ListInt2(_)) => OID_ARRAY,
        _ => return,
    };
    let array = take(value);
    *value = call(name, vec![array]);
}

/// The plain name of a type, without `pg_catalog`; quoted names keep their quotes.
fn type_name(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Regclass => Some("regclass".to_string()),
        DataType::Custom(name, modifiers) if modifiers.is_empty() => {
            let parts: Option<Vec<&Ident>> = name.0.iter().map(ObjectNamePart::as_ident).collect();
            let spelled = |ident: &Ident| match ident.quote_style {
                // Only `"char"` means something else with quotes than without.
                Some(_) if ident.value == "char" => "\"char\"".to_string(),
                _ => fold(ident),
            };
            match parts?.as_slice() {
                [name] => Some(spelled(name)),
                [schema, name] if fold(schema) == "pg_catalog" => Some(spelled(name)),
                [schema, name] if fold(schema) == "information_schema" => {
                    Some(format!("information_schema.{}", fold(name)))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// The reg type that a cast is to.
fn reg_type(data_type: &DataType) -> Option<String> {
    type_name(data_type).filter(|name| {
        matches!(
            name.as_str(),
            "regclass"
                | "regtype"
                | "regproc"
                | "regprocedure"
                | "regnamespace"
                | "regrole"
                | "regcollation"
        )
    })
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Text | DataType::Varchar(None) | DataType::CharacterVarying(None))
        || matches!(type_name(data_type).as_deref(), Some("text" | "varchar" | "name"))
}

/// A cast to a reg type, and what it is cast to in turn.
fn registered(expr: &mut Expr) -> Option<Expr> {
    match expr {
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr: inner,
            data_type,
            array: false,
            ..
        } => {
            if is_text(data_type)
                && let Some(text) = registered_text(inner)
            {
                return Some(text);
            }
            let kind = reg_type(data_type)?;
            let value = take(inner);
            Some(call(REG_OID, vec![string(&kind), value]))
        }
        Expr::BinaryOp { left, op: BinaryOperator::StringConcat, right } => {
            for side in [left, right] {
                if let Some(text) = registered_text(side) {
                    **side = text;
                }
            }
            None
        }
        _ => None,
    }
}

/// The name that a cast to a reg type shows.
fn registered_text(expr: &mut Expr) -> Option<Expr> {
    match expr {
        Expr::Nested(inner) => registered_text(inner),
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr: inner,
            data_type,
            array: false,
            ..
        } => {
            let kind = reg_type(data_type)?;
            let value = take(inner);
            Some(call(REG_TEXT, vec![string(&kind), value]))
        }
        Expr::Function(function) => {
            let name = identifiers(&function.name)?.pop()?;
            let kind = name.strip_prefix("to_").filter(|kind| kind.starts_with("reg"))?.to_string();
            let value = take(expr);
            Some(call(REG_TEXT, vec![string(&kind), value]))
        }
        _ => None,
    }
}

/// Casts between PostgreSQL's names of types and what the planner knows. `None` leaves the cast as it is.
fn cast_to(inner: &mut Expr, data_type: &mut DataType) -> Option<Expr> {
    if let DataType::Array(
        ArrayElemTypeDef::SquareBracket(element, _) | ArrayElemTypeDef::AngleBracket(element),
    ) = data_type
    {
        // An array of a plain type is the planner's own business.
        let array = match type_name(element)?.as_str() {
            "oid" | "regtype" | "regclass" | "regproc" | "xid" => OID_ARRAY,
            "name" => NAME_ARRAY,
            "text" | "varchar" | "\"char\"" | "bpchar" => TEXT_ARRAY,
            plain => {
                **element = match plain {
                    "int2" => DataType::SmallInt(None),
                    "int4" => DataType::Integer(None),
                    "int8" => DataType::BigInt(None),
                    _ => return None,
                };
                return None;
            }
        };
        return Some(call(array, vec![take(inner)]));
    }
    let name = type_name(data_type)?;
    *data_type = match name.as_str() {
        "text" | "name" | "\"char\"" | "pg_node_tree" | "aclitem" | "cstring" | "citext" => {
            DataType::Text
        }
        "varchar" | "bpchar" => DataType::Varchar(None),
        "oid" | "xid" | "cid" | "xid8" | "int8" => DataType::BigInt(None),
        "int4" => DataType::Integer(None),
        "int2" => DataType::SmallInt(None),
        "bool" => DataType::Boolean,
        "float4" => DataType::Real,
        "float8" => DataType::DoublePrecision,
        "information_schema.sql_identifier"
        | "information_schema.character_data"
        | "information_schema.yes_or_no" => DataType::Text,
        "information_schema.cardinal_number" => DataType::Integer(None),
        _ => return None,
    };
    None
}

/// Whether a function is called by this name, without a schema.
fn is_call_of(function: &Function, name: &str) -> bool {
    matches!(identifiers(&function.name).as_deref(), Some([called]) if called == name)
}

/// `ARRAY(SELECT ...)`.
fn array_of_query(function: &mut Function) -> Option<Expr> {
    if !is_call_of(function, "array") {
        return None;
    }
    let FunctionArguments::Subquery(query) = &mut function.args else {
        return None;
    };
    let mut query = std::mem::replace(&mut **query, query_of(empty_select()));
    let order = match query.order_by.take().map(|order| order.kind) {
        Some(OrderByKind::Expressions(order)) => order,
        Some(OrderByKind::All(_)) | None => Vec::new(),
    };
    let plain = query.limit_clause.is_none() && query.fetch.is_none();
    match query.body.as_mut() {
        SetExpr::Select(select) if plain && is_plain(select) => collect(select, order),
        _ => {
            // Something between the rows and the array: collect around it. The order is not kept there.
            query.body = Box::new(SetExpr::Select(Box::new(select_from(std::mem::replace(
                &mut query,
                query_of(empty_select()),
            )))));
        }
    }
    Some(call(OR_EMPTY, vec![Expr::Subquery(Box::new(query))]))
}

/// What `array_agg` of oids or names makes an array of.
fn collected(function: &Function) -> Option<&'static str> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(element))] = list.args.as_slice() else {
        return None;
    };
    if !is_call_of(function, "array_agg") || function.over.is_some() {
        return None;
    }
    match operand_kind(element)? {
        Kind::Oid("oid") => Some(OID_ARRAY),
        Kind::Text("name") => Some(NAME_ARRAY),
        _ => None,
    }
}

/// `CASE WHEN typtype = 'd' THEN x ELSE y END` is `y`, for there are no domains here. What clients look up of them, their base types, takes a recursive query for
/// each row, which cannot be run.
fn without_domains(expr: &mut Expr) -> Option<Expr> {
    let Expr::Case { operand: None, conditions, else_result, .. } = expr else {
        return None;
    };
    let asks = |condition: &Expr| match condition {
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            column_of(left).as_deref() == Some("typtype") && literal(right) == Some("d")
        }
        _ => false,
    };
    let [only] = conditions.as_slice() else { return None };
    if !asks(&only.condition) || !matches!(only.result, Expr::Subquery(_) | Expr::Nested(_)) {
        return None;
    }
    let otherwise = else_result.as_deref_mut().map(take);
    let null = Expr::Value(Value::Null.into());
    Some(match otherwise {
        Some(otherwise) if otherwise != null => otherwise,
        // Of the type that the base types have.
        _ => cast(null, DataType::BigInt(None)),
    })
}

/// An array of oids that [`OID_ARRAY`] has made, perhaps in a query of its own.
fn is_oids(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_oids(inner),
        Expr::Function(function) => is_call_of(function, OID_ARRAY),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => matches!(
                select.projection.as_slice(),
                [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] if is_oids(expr)
            ),
            _ => false,
        },
        _ => false,
    }
}

/// `coalesce(array, '{}')`.
fn or_empty(function: &mut Function) -> Option<Expr> {
    if !is_call_of(function, "coalesce") {
        return None;
    }
    let FunctionArguments::List(list) = &mut function.args else {
        return None;
    };
    match list.args.as_mut_slice() {
        [
            FunctionArg::Unnamed(FunctionArgExpr::Expr(array)),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(empty)),
        ] if literal(empty) == Some("{}") => Some(call(OR_EMPTY, vec![take(array)])),
        _ => None,
    }
}

/// A SELECT whose rows are those of its FROM and WHERE.
fn is_plain(select: &Select) -> bool {
    let grouped = match &select.group_by {
        GroupByExpr::Expressions(expressions, _) => !expressions.is_empty(),
        GroupByExpr::All(_) => true,
    };
    !grouped && select.distinct.is_none() && select.having.is_none()
}

/// Makes the one item of a SELECT an array of it.
fn collect(select: &mut Select, order: Vec<OrderByExpr>) {
    let Some(SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }) =
        select.projection.first_mut()
    else {
        return;
    };
    let element = take(item);
    let order: Vec<OrderByExpr> = order
        .into_iter()
        .map(|mut order| {
            if matches!(&order.expr, Expr::Value(ValueWithSpan { value: Value::Number(position, _), .. }) if position == "1") {
                order.expr = element.clone();
            }
            order
        })
        .collect();
    let clauses =
        if order.is_empty() { Vec::new() } else { vec![FunctionArgumentClause::OrderBy(order)] };
    select.projection = vec![SelectItem::UnnamedExpr(Expr::Function(function(
        "array_agg",
        vec![element],
        clauses,
    )))];
}

/// `SELECT array_agg(element) FROM (query) AS elements (element)`.
fn select_from(query: Query) -> Select {
    let mut select = empty_select();
    let element = Ident::new("element");
    select.projection =
        vec![SelectItem::UnnamedExpr(call("array_agg", vec![Expr::Identifier(element.clone())]))];
    select.from = vec![sqlparser::ast::TableWithJoins {
        relation: TableFactor::Derived {
            lateral: false,
            subquery: Box::new(query),
            alias: Some(TableAlias {
                explicit: true,
                name: Ident::new("elements"),
                columns: vec![TableAliasColumnDef { name: element, data_type: None }],
                at: None,
            }),
            sample: None,
        },
        joins: Vec::new(),
    }];
    select
}

/// What the outermost SELECTs show of reg types is the name, not the number.
fn show(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            for item in &mut select.projection {
                match item {
                    SelectItem::UnnamedExpr(expr) => {
                        let alias = column_name(expr);
                        if show_name(expr) {
                            *item = SelectItem::ExprWithAlias {
                                expr: take(expr),
                                alias: Ident::with_quote('"', alias),
                            };
                        }
                    }
                    SelectItem::ExprWithAlias { expr, .. } => {
                        show_name(expr);
                    }
                    SelectItem::ExprWithAliases { .. }
                    | SelectItem::QualifiedWildcard(..)
                    | SelectItem::Wildcard(_) => {}
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            show(left);
            show(right);
        }
        SetExpr::Query(query) => show(&mut query.body),
        SetExpr::Values(_)
        | SetExpr::Insert(_)
        | SetExpr::Update(_)
        | SetExpr::Delete(_)
        | SetExpr::Merge(_)
        | SetExpr::Table(_) => {}
    }
}

/// Makes a shown expression of a reg type its name. True if it was one.
fn show_name(expr: &mut Expr) -> bool {
    if let Some(text) = registered_text(expr) {
        *expr = text;
        return true;
    }
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => match operand_kind(expr) {
            Some(Kind::Oid(kind @ ("regproc" | "regtype"))) => {
                let value = take(expr);
                *expr = call(REG_TEXT, vec![string(kind), value]);
                true
            }
            _ => false,
        },
        Expr::Case { conditions, else_result, .. } => {
            let mut shown = false;
            for CaseWhen { result, .. } in conditions {
                shown |= show_name(result);
            }
            if let Some(result) = else_result {
                shown |= show_name(result);
            }
            shown
        }
        _ => false,
    }
}

/// `SELECT generate_series(1, 3)` yields rows.
fn set_of_rows(expr: &mut Expr) {
    match expr {
        Expr::Function(function) => {
            let Some(name) = identifiers(&function.name).and_then(|mut parts| parts.pop()) else {
                return;
            };
            match name.as_str() {
                "generate_series" | EXPAND_ARRAY => {
                    let list = take(expr);
                    *expr = call("unnest", vec![list]);
                }
                "generate_subscripts" => {
                    if let FunctionArguments::List(list) = &function.args {
                        let args = TableFunctionArgs { args: list.args.clone(), settings: None };
                        if let Some(series) = arguments(&args).and_then(subscripts) {
                            *expr = call("unnest", vec![series]);
                        }
                    }
                }
                _ => {}
            }
        }
        Expr::CompoundFieldAccess { root, .. } => set_of_rows(root),
        Expr::Nested(inner) => set_of_rows(inner),
        _ => {}
    }
}

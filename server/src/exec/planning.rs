//! The session as DataFusion's physical planner sees it: the server's state, and before DataFusion's rules those of [`rules`].
//!
//! A finished [`SessionState`] takes no more physical rules, and rebuilding one registers its functions in any order, so that DataFusion's may come before the
//! server's of the same name. So the rules are told where they are asked for. EXPLAIN asks here too.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProviderList, Session};
use datafusion::common::{DFSchema, Result};
use datafusion::config::TableOptions;
use datafusion::execution::TaskContext;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::registry::ExtensionTypeRegistryRef;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, WindowUDF,
};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::operator_statistics::StatisticsRegistry;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use super::piecewise::InPieces;

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// The physical plan of a logical one that is optimized.
///
/// # Errors
/// What planning answers.
pub(super) async fn physical(
    state: &SessionState,
    plan: &LogicalPlan,
) -> Result<Arc<dyn ExecutionPlan>> {
    let session = PlanningSession { state, rules: rules(state), table_options: None };
    state.query_planner().create_physical_plan(plan, &session).await
}

/// Ours first: limits go through what they put in.
fn rules(state: &SessionState) -> Vec<Rule> {
    let ours: [Rule; 1] = [Arc::new(InPieces)];
    ours.into_iter().chain(state.physical_optimizers().iter().cloned()).collect()
}

struct PlanningSession<'a> {
    state: &'a SessionState,
    rules: Vec<Rule>,
    /// Set once they are changed.
    table_options: Option<TableOptions>,
}

#[async_trait]
impl Session for PlanningSession<'_> {
    fn session_id(&self) -> &str {
        self.state.session_id()
    }

    fn config(&self) -> &SessionConfig {
        self.state.config()
    }

    fn catalog_list(&self) -> Arc<dyn CatalogProviderList> {
        self.state.catalog_list().clone()
    }

    fn query_planner(&self) -> Arc<dyn QueryPlanner + Send + Sync> {
        self.state.query_planner().clone()
    }

    fn optimize(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        self.state.optimize(plan)
    }

    fn physical_optimizers(&self) -> &[Rule] {
        &self.rules
    }

    fn statistics_registry(&self) -> Option<&StatisticsRegistry> {
        self.state.statistics_registry()
    }

    async fn create_physical_plan(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = self.state.optimize(plan)?;
        self.state.query_planner().create_physical_plan(&plan, self).await
    }

    fn create_physical_expr(&self, expr: Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        self.state.create_physical_expr(expr, schema)
    }

    fn scalar_functions(&self) -> &HashMap<String, Arc<ScalarUDF>> {
        self.state.scalar_functions()
    }

    fn higher_order_functions(&self) -> &HashMap<String, Arc<HigherOrderUDF>> {
        self.state.higher_order_functions()
    }

    fn aggregate_functions(&self) -> &HashMap<String, Arc<AggregateUDF>> {
        self.state.aggregate_functions()
    }

    fn window_functions(&self) -> &HashMap<String, Arc<WindowUDF>> {
        self.state.window_functions()
    }

    fn extension_type_registry(&self) -> &ExtensionTypeRegistryRef {
        self.state.extension_type_registry()
    }

    fn runtime_env(&self) -> &Arc<RuntimeEnv> {
        self.state.runtime_env()
    }

    fn execution_props(&self) -> &ExecutionProps {
        self.state.execution_props()
    }

    fn as_any(&self) -> &dyn Any {
        self.state
    }

    fn table_options(&self) -> &TableOptions {
        self.table_options.as_ref().unwrap_or_else(|| self.state.table_options())
    }

    fn table_options_mut(&mut self) -> &mut TableOptions {
        self.table_options.get_or_insert_with(|| self.state.table_options().clone())
    }

    fn task_ctx(&self) -> Arc<TaskContext> {
        self.state.task_ctx()
    }
}

"""The search: proposals, stopping and the plan. It knows neither Ray nor clocks."""

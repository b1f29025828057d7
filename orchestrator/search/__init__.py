"""The search: proposals, promotion and the plan. It knows neither Ray nor clocks."""

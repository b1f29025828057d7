"""What runs next: proposals, stopping and the plan. Knows neither Ray nor clocks."""

"""Workers: processes that evaluate encrypted queries, their fleet, and what their time costs."""

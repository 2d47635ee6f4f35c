"""Each midnight (UTC), the day that has just ended: its assets and their checks."""

import dagster as dg

daily_earthquakes = dg.define_asset_job(
    "daily_earthquakes",
    selection=dg.AssetSelection.groups("earthquakes").materializable()
    | dg.AssetSelection.checks_for_assets("raw_earthquakes"),
)

daily_schedule = dg.build_schedule_from_partitioned_job(daily_earthquakes)
"""Stopped until you start it in the UI. This data has ended, so it would ask for its last day."""

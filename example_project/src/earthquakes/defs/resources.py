"""Where the collections are: the address and the credentials come from the environment."""

import dagster as dg

from connectome_dagster import ConnectomeIOManager, ConnectomeResource

connectome = ConnectomeResource(
    base_url=dg.EnvVar("CONNECTOME_BASE_URL"),
    read_credential=dg.EnvVar("CONNECTOME_READ_CREDENTIAL"),
    write_credential=dg.EnvVar("CONNECTOME_WRITE_CREDENTIAL"),
)


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(
        resources={
            # For assets that query a collection themselves.
            "connectome": connectome,
            # What assets return is stored by this one, and loaded for the assets downstream.
            "io_manager": ConnectomeIOManager(connectome=connectome),
        },
        # These steps take a tenth of a second each: a process for every one would take longer.
        executor=dg.in_process_executor,
    )

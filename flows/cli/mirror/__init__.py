"""`transship mirror`: plan, check, run and deploy what mirrors.yaml says."""

from __future__ import annotations

from flows.cli.click_ext import group

mirror = group(
    "mirror",
    "Repositories, bundles and locks that are kept the same somewhere else.",
    {
        "plan": ("flows.cli.mirror.plan:plan", "Say what a run would copy"),
        "check": ("flows.cli.mirror.check:check", "Tell where destinations differ from what the mirrors say"),
        "run": ("flows.cli.mirror.run:run", "Copy what is missing or changed"),
        "watch": ("flows.cli.mirror.watch:watch", "Run mirrors by their schedules, without a server"),
        "deploy": ("flows.cli.mirror.deploy:deploy", "Put the mirrors on a Prefect server, with their schedules"),
        "validate": ("flows.cli.mirror.deploy:validate", "Read the file and show what it says, without a network"),
        "schema": ("flows.cli.mirror.deploy:schema", "Print the format of the file, for editors"),
    },
)

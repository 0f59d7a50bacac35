"""The `dfsc-tune` app and its commands. Heavy modules are imported inside, so --help is instant."""

from __future__ import annotations

from dfsc_tune.cli import (
    bench,
    cluster,
    confirm,
    data,
    evaluate,
    fetch,
    job,
    model,
    page,
    plan,
    reproduce,
    runs,
    search,
    teacher,
    watch,
)
from dfsc_tune.cli.group import make_app

app = make_app(
    "Finds, per product category, the DFSC settings that detect its structural and logical "
    "defects best.\n\nThe environment variable DFSC_TUNE_CACHE names the folder for what is made "
    "or fetched once: built-in data, anomalies, copies of object stores."
)
app.command("search")(search.search)
app.command("resume")(search.resume)
app.command("submit")(job.submit)
app.command("fetch")(fetch.fetch)
app.command("confirm")(confirm.confirm)
app.command("watch")(watch.watch)
app.command("plan")(plan.plan)
app.command("best")(runs.best)
app.command("runs")(runs.runs)
app.command("report")(page.report)
app.command("compare")(page.compare)
app.command("train")(model.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(model.predict)
app.command("export")(model.export)
app.command("bench")(bench.bench)
app.command("reproduce")(reproduce.reproduce)
app.add_typer(data.app, name="data")
app.add_typer(teacher.app, name="teacher")
app.add_typer(cluster.app, name="cluster")
app.add_typer(job.app, name="job")

"""The console, first version: what was received, and for one study the whole story. Read only, no patient identity."""

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from psycopg_pool import ConnectionPool

from dicom_node.exposition import CONTENT_TYPE, exposition
from dicom_node.patience import DATABASE_AWAY
from dicom_node.settings import Settings
from dicom_node.story import results_table, studies_table, study_story


def console_app(pool: ConnectionPool, settings: Settings) -> FastAPI:
    """The web application over the node's database."""
    app = FastAPI(title="dicom-node", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health", response_class=PlainTextResponse)
    def health() -> str:
        try:
            with pool.connection(timeout=2) as connection:
                connection.execute("SELECT 1")
        except DATABASE_AWAY as error:
            raise HTTPException(503, "the database does not answer") from error
        return "ok\n"

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(exposition(settings, pool), media_type=CONTENT_TYPE)

    @app.get("/", response_class=HTMLResponse)
    def studies() -> str:
        with pool.connection() as connection:
            rows = studies_table(connection, limit=200)
            results = results_table(connection, rows)
        body = "".join(
            f'<tr><td><a href="/studies/{_text(row.study_instance_uid)}">{_text(row.study_instance_uid)}</a></td>'
            f"<td>{row.last_received_at:%Y-%m-%d %H:%M:%S}</td><td>{row.instances}</td>"
            f"<td>{_text(row.state)}</td><td>{_text(results.get(row.study_instance_uid, ''))}</td>"
            f"<td>{_text(row.reason)}</td></tr>"
            for row in rows
        )
        head = "<tr><th>Study</th><th>last image</th><th>images</th><th>state</th><th>results</th><th>why</th></tr>"
        return _page("Studies", f"<table>{head}{body}</table>")

    @app.get("/studies/{study_instance_uid}", response_class=HTMLResponse)
    def study(study_instance_uid: str) -> str:
        with pool.connection() as connection:
            story = study_story(connection, study_instance_uid)
        if story is None:
            raise HTTPException(404, "no such study")
        return _page("Study", f"<pre>{_text(story)}</pre>")

    return app


def _page(title: str, body: str) -> str:
    style = "body{font:14px sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:left;vertical-align:top}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} - dicom-node</title>'
        f'<style>{style}</style></head><body><h1>{title}</h1>{body}<p><a href="/">all studies</a></p></body></html>'
    )


def _text(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")

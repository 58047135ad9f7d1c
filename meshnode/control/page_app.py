"""The live page over HTTP: its files, its session, the picture it follows, and the plans it may ask for.

What lives here: `page_app`. What does not: who may ask (`meshnode.control.page_gate`) and listening
(`meshnode.control.page_door`). The files are plain HTML, CSS and JavaScript in `meshnode/page`, sent as they are.

This application has no route that changes anything: what the page can't do, nobody who gets at its session can do.
Plans are made for models by the names the mesh knows, never for a path: a page shall not ask which files exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshnode.control.app import ERROR_ANSWERS, JsonResponse, read_body, whole_parameter
from meshnode.control.live import Live
from meshnode.control.page_session import PageSessions
from meshnode.control.shapes import Json
from meshnode.control.streams import BoundedStream, Slots
from meshnode.control.surface import ControlError, ControlSurface

PLAN_FIELDS: Final = frozenset({"model", "context", "lanes", "kv_type", "objective"})
_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def page_app(surface: ControlSurface, live: Live, sessions: PageSessions, slots: Slots) -> Starlette:
    """The application behind the gate. `slots` bound the pages open at once."""
    page = _Page(surface, live, sessions, slots)
    routes = [
        Route("/", page.document),
        Route("/page/files/{name}", page.file),
        Route("/page/session", page.session, methods=["POST"]),
        Route("/page/live", page.live),
        Route("/page/plan", page.plan, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers=ERROR_ANSWERS)
    app.router.redirect_slashes = False
    return app


class _Page:
    def __init__(self, surface: ControlSurface, live: Live, sessions: PageSessions, slots: Slots) -> None:
        self._surface = surface
        self._live = live
        self._sessions = sessions
        self._slots = slots
        self._files = page_files()

    async def document(self, request: Request) -> Response:
        return _file_answer(request, "index.html", self._files["index.html"])

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            raise ControlError(404, "not_found", "the page has no such file")
        return _file_answer(request, name, self._files[name])

    async def session(self, request: Request) -> Response:
        body = await read_body(request)
        code = body.get("code")
        session = self._sessions.exchange(code) if isinstance(code, str) else None
        if session is None:
            message = "this code is used up or too old: run `meshnode ui` for another"
            raise ControlError(401, "wrong_code", message)
        return JsonResponse({"session": session}, headers={"Cache-Control": "no-store"})

    async def live(self, request: Request) -> Response:
        return BoundedStream(self._live.follow(whole_parameter(request, "after", 0)), self._slots)

    async def plan(self, request: Request) -> Response:
        body = await read_body(request)
        self._check_plan(body)
        return JsonResponse(await self._surface.plan(body), headers={"Cache-Control": "no-store"})

    def _check_plan(self, body: Json) -> None:
        for field in body.keys() - PLAN_FIELDS:
            raise ControlError.bad_field(field, body[field], "one of " + ", ".join(sorted(PLAN_FIELDS)))
        answer = self._surface.models()
        known = {*answer.get("profiles", ()), *(model["ref"] for model in answer.get("models", ()))}
        if body.get("model") not in known:
            raise ControlError.bad_field("model", body.get("model"), "a model that the mesh or this node names")


def page_files() -> Mapping[str, bytes]:
    """Every file of the page by its name."""
    found = files("meshnode") / "page"
    return {file.name: file.read_bytes() for file in found.iterdir() if file.name.rpartition(".")[2] in _TYPES}


def _file_answer(request: Request, name: str, content: bytes) -> Response:
    """The file, or 304 where the browser has it: an upgraded node's page is new at once, the same one is not sent."""
    tag = f'"{sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)

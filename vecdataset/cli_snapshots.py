"""The shell's commands on snapshots and backups; `cli.py` has the rest."""

# ruff: noqa: D301 - click reads the backspace in a docstring as "do not wrap this"
# ruff: noqa: FBT001 - click passes flags by name

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from vecdataset.shell import (
    as_json_of,
    at_option,
    bar,
    emit,
    is_server,
    json_flag,
    main,
    open_at,
    options_of,
    storage_option,
    target_option,
    tell,
)

if TYPE_CHECKING:
    from vecdataset.catalog import Catalog
    from vecdataset.snapshots import Snapshots

_yes = click.option("--yes", is_flag=True, help="Do not ask.")


def _snapshots(url: str, storage: Mapping[str, Any]) -> Snapshots:
    return open_at(url, storage).snapshots


def _sure(question: str, *, yes: bool) -> None:
    """Ask on a terminal; elsewhere --yes must be given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("add --yes: nobody is there to be asked")
    click.confirm(question, abort=True, err=True)


def _age(ctx: click.Context, param: click.Parameter, text: str | None) -> timedelta | None:  # noqa: ARG001
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)([hdw])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a number with h, d or w, such as 30d")
    return timedelta(hours=int(found[1]) * {"h": 1, "d": 24, "w": 168}[found[2]])


@main.group()
def snapshot() -> None:
    """Make, list, restore, copy and compare sealed versions.

    \b
    Example:
      $ vecdataset snapshot create ./books before-reindex
    """


@snapshot.command()
@click.argument("url")
@click.argument("name", required=False)
@click.option("--note", help="Text for people, kept in the manifest.")
@storage_option
@json_flag
def create(url: str, name: str | None, note: str | None, storage: dict[str, Any], as_json: bool) -> None:
    """Seal the newest version.

    \b
    Example:
      $ vecdataset snapshot create ./books before-reindex --note 'asked for by the editors'
    """
    with bar("hash", share=True) as progress:
        made = _snapshots(url, storage).create(name, note=note, progress=progress)
    data = {
        "name": made.name,
        "version": made.version,
        "rows": made.rows,
        "files": len(made.files),
        "root": made.root,
    }
    tell(
        f"{made.name}: {made.rows:,} points in {len(made.files)} files, root {made.root}",
        data,
        as_json=as_json,
    )


@snapshot.command("list")
@click.argument("url")
@storage_option
@json_flag
def list_(url: str, storage: dict[str, Any], as_json: bool) -> None:
    """List snapshots, newest first.

    \b
    Example:
      $ vecdataset snapshot list ./books
    """
    emit(_snapshots(url, storage).list().to_pylist(), as_json=as_json)


@snapshot.command()
@click.argument("url")
@click.argument("name")
@click.option(
    "--into", metavar="NAME|URL", help="A free name beside the collection, or a URL; else in place."
)
@click.option("--overwrite", is_flag=True, help="Move aside what stands at --into; nothing is deleted.")
@click.option("--dry-run", is_flag=True, help="Verify, look whether it would fit, and write nothing.")
@_yes
@storage_option
@target_option
@json_flag
def restore(
    url: str,
    name: str,
    into: str | None,
    overwrite: bool,
    dry_run: bool,
    yes: bool,
    storage: dict[str, Any],
    target_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Bring a snapshot, or in place a version by its number, back, once it has been verified.

    \b
    Example:
      $ vecdataset snapshot restore ./books before-reindex --into books-then
    """
    if into is None and not dry_run:
        _sure(f"Make {name!r} the newest version of {url}? What is newest now stays as a snapshot.", yes=yes)
    elif overwrite and not dry_run:
        _sure(f"Move aside what stands at {into}?", yes=yes)
    with bar("restore", share=True) as progress:
        where = _snapshots(url, storage).restore(
            int(name) if name.isdigit() else name,
            into=into,
            overwrite=overwrite,
            dry_run=dry_run,
            storage_options=options_of(into or "", target_options, storage),
            progress=progress,
        )
    said = f"{name} is whole, and would stand at {where}" if dry_run else f"{name} stands at {where}"
    tell(said, {"snapshot": name, "url": where, "dry_run": dry_run}, as_json=as_json)


@snapshot.command()
@click.argument("url")
@click.argument("name")
@_yes
@storage_option
@json_flag
def delete(url: str, name: str, yes: bool, storage: dict[str, Any], as_json: bool) -> None:
    """Remove a snapshot; clean-up may then remove files that only it needs.

    \b
    Example:
      $ vecdataset snapshot delete ./books before-reindex --yes
    """
    _sure(f"Delete snapshot {name!r} of {url}?", yes=yes)
    _snapshots(url, storage).delete(name)
    tell(f"deleted {name}", {"deleted": name}, as_json=as_json)


@snapshot.command()
@click.argument("url")
@click.option("--keep-last", type=click.IntRange(0), help="Keep the newest so many.")
@click.option("--older-than", callback=_age, metavar="AGE", help="Only older ones, such as 30d, 12h or 8w.")
@click.option("--dry-run", is_flag=True, help="Only say which would go.")
@_yes
@storage_option
@json_flag
def prune(
    url: str,
    keep_last: int | None,
    older_than: timedelta | None,
    dry_run: bool,
    yes: bool,
    storage: dict[str, Any],
    as_json: bool,
) -> None:
    """Delete old snapshots.

    \b
    Example:
      $ vecdataset snapshot prune ./books --keep-last 7 --yes
    """
    if keep_last is None and older_than is None:
        raise click.UsageError("give --keep-last, --older-than, or both")
    snapshots = _snapshots(url, storage)
    names = snapshots.prune(keep_last=keep_last, older_than=older_than, dry_run=True)
    if names and not dry_run:
        _sure(f"Delete {len(names)} snapshots of {url}: {', '.join(names)}?", yes=yes)
        names = snapshots.prune(keep_last=keep_last, older_than=older_than)
    said = "would delete" if dry_run else "deleted"
    tell(f"{said} {', '.join(names) or 'nothing'}", {"deleted": names, "dry_run": dry_run}, as_json=as_json)


@snapshot.command()
@click.argument("url")
@click.argument("name")
@click.argument("target")
@storage_option
@target_option
@json_flag
def copy(
    url: str,
    name: str,
    target: str,
    storage: dict[str, Any],
    target_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Copy a snapshot to another place, each file verified; again moves only new files.

    \b
    Example:
      $ vecdataset snapshot copy ./books before-reindex s3://backup/books
    """
    options = options_of(target, target_options, storage)
    with bar("copy", share=True) as progress:
        done = _snapshots(url, storage).copy(name, target, storage_options=options, progress=progress)
    data = {"url": done.url, "copied": done.copied, "skipped": done.skipped, "size_bytes": done.size_bytes}
    tell(f"{done.url}: {done.copied} files copied, {done.skipped} there already", data, as_json=as_json)


@snapshot.command()
@click.argument("url")
@click.argument("name")
@click.argument("archive")
@storage_option
@target_option
@json_flag
def pack(
    url: str, name: str, archive: str, storage: dict[str, Any], target_options: dict[str, Any], as_json: bool
) -> None:
    """Write a snapshot into one file: .tar, .tar.gz or .tgz.

    \b
    Example:
      $ vecdataset snapshot pack ./books before-reindex books.tar
    """
    options = options_of(archive, target_options, storage)
    with bar("pack", share=True) as progress:
        where = _snapshots(url, storage).pack(name, archive, storage_options=options, progress=progress)
    tell(f"{name} is packed in {where}", {"snapshot": name, "archive": where}, as_json=as_json)


@snapshot.command()
@click.argument("archive")
@click.argument("url")
@storage_option
@target_option
@json_flag
def unpack(
    archive: str, url: str, storage: dict[str, Any], target_options: dict[str, Any], as_json: bool
) -> None:
    """Bring a packed snapshot to a free place, as a collection, each file verified.

    \b
    Example:
      $ vecdataset snapshot unpack books.tar ./books-again
    """
    from vecdataset.archives import unpack as run

    ours, theirs = options_of(archive, storage), options_of(url, target_options, storage)
    with bar("unpack", share=True) as progress:
        made = run(archive, url, storage_options=ours, target_options=theirs, progress=progress)
    data = {"snapshot": made.name, "url": url, "rows": made.rows}
    tell(f"{made.name} stands at {url}, {made.rows:,} points", data, as_json=as_json)


@snapshot.command()
@click.argument("source")
@click.argument("target", default=".", type=click.Path())
@storage_option
@json_flag
def fetch(source: str, target: str, storage: dict[str, Any], as_json: bool) -> None:
    """Bring a .snapshot file of Qdrant from a bucket to the disk, compared with its checksum.

    `ls --snapshots` lists them.

    \b
    Example:
      $ vecdataset snapshot fetch s3://bucket/qdrant/books.snapshot ./downloads
    """
    from dataclasses import asdict

    from vecdataset.formats.qdrant.shelf import fetch as run

    with bar("fetch", share=True) as progress:
        done = run(source, target, options=storage, progress=progress)
    said = "compared with its checksum" if done.compared else "no checksum stands beside it"
    tell(
        f"{done.file}: {done.size_bytes:,} bytes, SHA-256 {done.sha256}, {said}",
        asdict(done),
        as_json=as_json,
    )


@snapshot.command()
@click.argument("url")
@click.argument("old")
@click.argument("new", required=False)
@storage_option
@json_flag
def diff(url: str, old: str, new: str | None, storage: dict[str, Any], as_json: bool) -> None:
    """Say which points changed from one snapshot or version to another, or to the newest.

    \b
    Example:
      $ vecdataset snapshot diff ./books before-reindex
    """
    a, b = (int(v) if v is not None and v.isdigit() else v for v in (old, new))
    assert a is not None
    found = _snapshots(url, storage).diff(a, b)
    data = {
        k: list(getattr(found, k))
        for k in ("added", "changed", "removed", "columns_added", "columns_removed")
    }
    tell("\n".join(f"{k.replace('_', ' ')}: {len(v)}" for k, v in data.items()), data, as_json=as_json)


@main.command()
@click.argument("url")
@click.argument("name", required=False)
@click.option("--current", is_flag=True, help="The newest version, with what its commits put on record.")
@click.option("--deep", is_flag=True, help="Also read every value.")
@storage_option
@json_flag
def verify(
    url: str, name: str | None, current: bool, deep: bool, storage: dict[str, Any], as_json: bool
) -> None:
    """Compare every file of a snapshot, or of all, with its sealed manifest; exit 1 on damage.

    \b
    Example:
      $ vecdataset verify s3://lake/books
    """
    with bar("verify", share=True) as progress:
        found = _snapshots(url, storage).verify(name, current=current, deep=deep, progress=progress)
    reports: Sequence[Any] = found if isinstance(found, Sequence) else [found]
    for report in reports:
        tell(str(report), report.to_dict(), as_json=as_json)
    if not reports:
        click.echo("no snapshots; `vecdataset snapshot create` makes one", err=True)
    if not all(reports):
        raise SystemExit(1)


@main.command()
@click.argument("root")
@click.argument("target")
@click.option("--only", multiple=True, metavar="NAME", help="Only this collection; repeatable.")
@click.option(
    "--keep-last",
    type=click.IntRange(1),
    help="Keep so many backups of each, here and there; snapshots made by hand stay.",
)
@click.option("--keep", is_flag=True, help="Of a Qdrant server: leave the snapshots there too.")
@storage_option
@target_option
@json_flag
def backup(
    root: str,
    target: str,
    only: tuple[str, ...],
    keep_last: int | None,
    keep: bool,
    storage: dict[str, Any],
    target_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Seal and copy all collections beneath ROOT, or of a Qdrant server, to TARGET; exit 1 if one failed.

    \b
    Example:
      $ vecdataset backup s3://lake ./backup --keep-last 30
      $ vecdataset backup qdrant://localhost:6333 ./qdrant-backup
    """
    if is_server(root):
        _refuse(keep_last=keep_last)
        _backup_server(root, target, only or None, storage, target_options, keep=keep, as_json=as_json)
        return
    from vecdataset.backup import backup as run

    source, place = _root(root, storage), _root(target, target_options, storage)
    with bar("backup", share=True) as progress:
        done = run(source, place, names=only or None, keep_last=keep_last, progress=progress)
    _report(done, as_json=as_json)


def _backup_server(
    url: str, target: str, only: Sequence[str] | None, storage: Mapping[str, Any],
    target_options: Mapping[str, Any], *, keep: bool, as_json: bool,
) -> None:  # fmt: skip
    from vecdataset.formats.qdrant.backups import back_up

    with bar("backup", share=True) as progress:
        entries = back_up(
            url,
            target,
            names=only,
            keep=keep,
            server_options=storage,
            target_options=target_options,
            progress=progress,
        )
    _report_server(entries, as_json=as_json)


@main.command("restore")
@click.argument("backup")
@click.argument("root", required=False)
@click.option("--only", multiple=True, metavar="NAME", help="Only this collection; repeatable.")
@click.option("--overwrite", is_flag=True, help="Move aside collections that are there; nothing is deleted.")
@click.option("--dry-run", is_flag=True, help="Verify, look whether all would fit, and write nothing.")
@click.option("--verify-only", is_flag=True, help="Only verify every file of the backup; ROOT is not needed.")
@click.option("--deep", is_flag=True, help="Also read every value when verifying.")
@_yes
@storage_option
@target_option
@json_flag
def restore_backup(
    backup: str,
    root: str | None,
    only: tuple[str, ...],
    verify_only: bool,
    yes: bool,
    storage: dict[str, Any],
    target_options: dict[str, Any],
    as_json: bool,
    **options: Any,
) -> None:
    """Bring collections of a backup back beneath ROOT, or to a Qdrant server; exit 1 if one failed.

    Each is verified. A server's collections are replaced, after a question.

    \b
    Example:
      $ vecdataset restore ./backup ./restored
      $ vecdataset restore ./qdrant-backup qdrant://localhost:6333 --yes
    """
    if root is not None and is_server(root):
        _refuse(verify_only=verify_only, **options)
        _restore_server(backup, root, only or None, target_options, storage, yes=yes, as_json=as_json)
        return
    from vecdataset.backup import restore as run

    if root is None and not verify_only:
        raise click.UsageError("give ROOT, or --verify-only")
    if options["overwrite"] and not options["dry_run"]:
        _sure(f"Move aside what stands beneath {root} under the same names?", yes=yes)
    place = None if root is None or verify_only else _root(root, target_options, storage)
    with bar("restore", share=True) as progress:
        done = run(_root(backup, storage), place, names=only or None, progress=progress, **options)
    _report(done, as_json=as_json)


def _refuse(**options: Any) -> None:
    """Refuse options that go with backups of collections, not of a server."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise click.UsageError(f"{given[0]} does not go with a Qdrant server")


def _root(url: str, *options: Mapping[str, Any]) -> Catalog:
    from vecdataset.catalog import Catalog

    return Catalog(url, storage_options=options_of(url, *options))


def _restore_server(
    backup: str, url: str, only: Sequence[str] | None, server: Mapping[str, Any], storage: Mapping[str, Any],
    *, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    from vecdataset.formats.qdrant.backups import occupied, put_back

    options: dict[str, Any] = {"server_options": server, "source_options": storage}
    wanted, there = occupied(backup, url, names=only, **options)
    lost = f"; {', '.join(there)} will be replaced" if there else ""
    _sure(f"Restore {len(wanted)} collections to {url}{lost}?", yes=yes)
    with bar("restore", share=True) as progress:
        entries = put_back(backup, url, names=only, replace_existing=True, progress=progress, **options)
    _report_server(entries, as_json=as_json)


def _report_server(entries: Sequence[Any], *, as_json: bool) -> None:
    from dataclasses import asdict

    emit([asdict(e) for e in entries], as_json=as_json, shown=["collection", "points", "file", "error"])
    if not all(e.ok for e in entries):
        raise SystemExit(1)


def _report(outcomes: Sequence[Any], *, as_json: bool) -> None:
    from dataclasses import asdict

    emit([asdict(o) for o in outcomes], as_json=as_json, shown=["collection", "rows", "snapshot", "error"])
    failed = [o for o in outcomes if not o.ok]
    for outcome in failed:
        if as_json_of(as_json):
            click.echo(f"{outcome.collection}: {outcome.error}", err=True)
    if failed:
        raise SystemExit(1)


@main.command()
@click.argument("url")
@click.argument("target")
@at_option
@storage_option
@target_option
@json_flag
def checkout(
    url: str,
    target: str,
    at: str | None,
    storage: dict[str, Any],
    target_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Copy a collection's newest version to TARGET, to work on it there, or bring the copy up to date.

    \b
    Example:
      $ vecdataset checkout s3://lake/books ./books
    """
    # Not those of the source where none are given for the target: it is mostly a disk.
    with bar("checkout", share=True) as progress:
        made = open_at(url, storage, at).checkout(target, storage_options=target_options, progress=progress)
    data = {"url": made.url, "version": made.version, "rows": len(made)}
    tell(f"{made.url} has version {made.version} of {url}, {len(made):,} points", data, as_json=as_json)


@main.command()
@click.argument("url")
@click.argument("target", required=False)
@storage_option
@target_option
@json_flag
def publish(
    url: str, target: str | None, storage: dict[str, Any], target_options: dict[str, Any], as_json: bool
) -> None:
    """Bring what was committed to a working copy to where it was checked out from, or to TARGET.

    \b
    Example:
      $ vecdataset publish ./books
    """
    from dataclasses import asdict

    with bar("publish", share=True) as progress:
        done = open_at(url, storage).publish(target, storage_options=target_options, progress=progress)
    said = f"{done.url} is at version {done.version}: {done.versions} versions, {done.copied} files came"
    tell(said, asdict(done), as_json=as_json)


@main.command("clean-up")
@click.argument("url")
@click.option("--older-than", callback=_age, default="7d", show_default=True, metavar="AGE")
@click.option("--orphans", is_flag=True, help="Also what crashes left, whatever its age: nobody may write.")
@_yes
@storage_option
@json_flag
def clean_up(
    url: str, older_than: timedelta, orphans: bool, yes: bool, storage: dict[str, Any], as_json: bool
) -> None:
    """Remove old versions that no snapshot holds, and files that no version needs.

    \b
    Example:
      $ vecdataset clean-up ./books --older-than 1d --yes
    """
    _sure(f"Remove versions of {url} that no snapshot holds?", yes=yes)
    freed = open_at(url, storage).clean_up(older_than=older_than, orphans=orphans)
    tell(f"freed {freed:,} bytes", {"freed_bytes": freed}, as_json=as_json)


@main.command()
@click.argument("url")
@_yes
@storage_option
@json_flag
def repair(url: str, yes: bool, storage: dict[str, Any], as_json: bool) -> None:
    """Go back to the last version that can be read, if the newest cannot; without --yes only say so.

    \b
    Example:
      $ vecdataset repair ./books
    """
    from dataclasses import asdict

    from vecdataset.repair import repair as run
    from vecdataset.storage import resolve

    found = run(resolve(url, storage_options=storage), dry_run=not yes)
    tell(str(found), asdict(found), as_json=as_json)

"""Lines of a file that grows: those that are whole are read, whatever the others are."""

import json

from tiltflow.report.files import append_json_lines, json_lines


def test_damaged_lines_are_left_out(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_json_lines(path, [{"a": 1}, {"b": "é"}])
    others = [
        b'{"a": "\xff"}',
        b"[1, 2]",
        b"3",
        b"",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b'{"a": ',
    ]
    whole = path.read_bytes()
    content = b"\n".join([*others[:4], whole.strip(), *others[4:]])
    assert [line for _, line in json_lines(content)] == [{"a": 1}, {"b": "é"}]
    assert b"".join(text + b"\n" for text, _ in json_lines(content)) == whole
    assert [line for _, line in json_lines(json.dumps({"a": 10**400}).encode())] == [{"a": 10**400}]

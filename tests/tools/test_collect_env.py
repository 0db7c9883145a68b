from importlib.metadata import version

from tests.helpers.load_tool import load_tool


def test_says_what_is_installed(capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['collect_env.py'])
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    load_tool('collect_env').main()

    rows = dict(line.split('  ', 1) for line in capsys.readouterr().out.splitlines())
    found = {name.strip(): value.strip() for name, value in rows.items()}
    assert found['package mmdet3d'] == version('mmdet3d')
    assert found['$HF_HUB_OFFLINE'] == '1'
    assert found["mmcv's ops"] in ('compiled', 'absent (not needed)')

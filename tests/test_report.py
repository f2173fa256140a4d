"""The report of a run, and the command that writes it."""

import re

from fer_jax import report
from fer_jax.evaluation import metrics
from fer_jax.reporting import html_report
from fer_jax.runs import results as run_results


def test_a_run_ends_with_a_page_that_opens_offline(finished, tmp_path, capsys):
    """With the numbers of its results, pictures of all mistakes, and nothing from elsewhere."""
    workdir, results = finished
    page = (workdir / 'report.html').read_text()
    test = results['splits']['test']
    assert f'{100 * test["accuracy"]:.1f}<small> %</small>' in page
    assert page.count('<figure>') == 12 + round(12 * (1 - test['accuracy'])) + 2 * 12
    for heading in (
        'Training curves',
        'Confusion matrix, test',
        'Results per class, test',
        'Calibration',
        'Selective prediction',
        'Saliency maps (occlusion)',
        'Saliency maps of every class',
        'Data set',
        'How to reproduce this run',
        'Limitations',
    ):
        assert f'<h2>{heading}</h2>' in page
    part = run_results.read_predictions(workdir / 'predictions.npz', 'test')
    ece = metrics.calibration(part['logits'], part['labels'])
    assert f'calibration error (ECE) is {ece["ece"]:.1%}.\nTemperature scaling' in page
    assert page.count('<th scope="row"><img') == 3 and 'no duplicates, and no subject in two splits' in page
    assert not re.search(r'(src|href)="(?!data:image/png;base64,)|url\(|@import|<script', page)
    styled = (html_report.TEMPLATES / 'report.css').read_text()
    assert all(f'.{name}' in styled for names in re.findall('class="?([a-z ]+)', page) for name in names.split())
    for tag in ('section', 'table', 'figure', 'svg', 'details', 'tr', 'td'):
        assert len(re.findall(f'<{tag}[ >]', page)) == page.count(f'</{tag}>') > 0
    assert report.main([str(workdir)]) == 0 and (workdir / 'report.html').read_text() == page
    assert report.main([str(workdir), str(workdir), '--output', str(tmp_path / 'two.html')]) == 0
    two = (tmp_path / 'two.html').read_text()
    assert two.count('<tr>') == 3 and '<td>1</td></tr>' in two
    assert 'alt="Training curves"' in two and 'The configs are the same.' in two
    assert report.main([str(tmp_path)]) == 2 and 'holds no finished run' in capsys.readouterr().err

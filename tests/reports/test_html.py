from harmony_app.reports.html import LONGEST_TABLE, Link, folded, image, items, page, table

COLUMNS = {'scan': 'Name', 'value': 'A "number" & more'}


def test_words_of_a_dataset_stay_words():
    text = page('<b>', items(['a < b']), {'R & D': table([{'scan': '<script>'}], COLUMNS)})
    assert '<b>' not in text
    assert '<script>' not in text
    assert text.count('R &amp; D') == 2  # contents and heading
    assert '&lt;script&gt;' in text


def test_links_are_paths_beside_the_page():
    text = table([{'scan': Link('a "b"', 'sub-01/figures/a b#1.png')}], COLUMNS)
    assert '<a href="sub-01/figures/a%20b%231.png">a &quot;b&quot;</a>' in text


def test_numbers_and_what_is_absent():
    text = table([{'scan': 'x', 'value': 1234.5678}, {'scan': 'y'}], COLUMNS)
    assert '<td class="number">1235</td>' in text
    assert '<td>n/a</td>' in text
    assert 'title="A &quot;number&quot; &amp; more"' in text


def test_a_long_table_says_where_the_rest_is():
    rows = [{'scan': f's{number}'} for number in range(LONGEST_TABLE + 2)]
    text = table(rows, COLUMNS)
    assert text.count('<td>') == LONGEST_TABLE
    assert f'The first {LONGEST_TABLE} of {LONGEST_TABLE + 2} rows' in text


def test_a_page_needs_nothing_from_outside():
    text = page('T', '', {'A': image(b'png', 'a picture'), 'B': folded('more', 'text')})
    assert "default-src 'none'" in text
    assert 'src="data:image/png;base64,cG5n" alt="a picture"' in text
    assert '<details><summary>more</summary>' in text
    assert '://' not in text
    assert 'href="#part2">B</a>' in text
    assert '<section id="part2">' in text

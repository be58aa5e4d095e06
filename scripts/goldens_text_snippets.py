"""Expressions and statements whose result must be Python's, to the character. `v` is VALUES."""

VALUES = {
    "s": "Hello, World", "empty": "", "pad": "  two  words \n", "u": "straße ÉCOLE ǆ 中文 😀",
    "lines": "a\nb\r\nc\n\nd", "csv": "a,b,,c", "i": 7, "neg": -7, "zero": 0, "f": 2.5, "big": 1e16,
    "small": 1.5e-7, "whole": 3.0, "huge": 123456789012345678901234567890, "t": True, "n": None,
    "list": [3, 1, 2], "mixed": [1, "two", None, 2.0, False, [1, {"a": "b"}]], "nested": [[1],
    [2, 3]],
    "d": {"b": 1, "a": [1, 2], "items": "shadow", "get": 5, "c d": None, "é": "ü\u0007\u200b"},
    "rows": [{"k": "x", "n": 2, "o": {"p": 1}}, {"k": "Y", "n": 1, "o": {"p": 3}},
             {"k": "x", "n": 3, "o": {"p": 2}}], "words": ["b", "A", "c", "a", "B"],
    "quote": "it's", "quotes": "it's \"so\"", "html": "<a href='x'>&\"</a>", "digits": "042",
    "control": "\u0000\u001f\u007f\u0085\u00ad\u00a0\ue000\t\\",
}

EXPRESSIONS = """
v.n ~ v.t ~ v.f ~ v.big ~ v.small ~ v.whole ~ v.huge ~ v.neg ~ v.list ~ v.mixed ~ v.nested ~ \
v.d ~ v.missing ~ v.empty
[v.quote, v.quotes, v.control, v.u]
{'a': 1, 2: [true, none], none: 1.0, true: {}}
none ~ true ~ 1.0 ~ [none] ~ v.missing ~ v.s
v.d.items()|list
v.d['items']
v.d.get
v.d.get('b') ~ v.d.get('zz') ~ v.d.get('zz', 'dflt')
v.d.keys()|list ~ v.d.values()|list
v.d.items is defined
v['d']['c d'] is none
v.s[0] ~ v.s[-1] ~ v.s[1:4] ~ v.s[::-1] ~ v.s[-5:] ~ v.s[::2] ~ v.s[10:2:-3] ~ v.s[100:] ~ v.u[-2:]
v.list[0] ~ v.list[-1] ~ v.list[1:] ~ v.list[::-1] ~ v.list[:-1] ~ v.list[5:] ~ v.list[-100:100]
v.list[99]
v.list[99] is defined
v.s.upper() ~ v.s.lower() ~ v.u.upper() ~ v.u.lower() ~ v.u.title() ~ v.u.capitalize() ~ \
v.u.swapcase()
v.pad.strip() ~ '|' ~ v.pad.lstrip() ~ '|' ~ v.pad.rstrip() ~ '|' ~ v.csv.strip('a,c') ~ v.pad|trim
v.csv.split(',') ~ v.csv.split(',', 1) ~ v.csv.rsplit(',', 1) ~ v.pad.split() ~ v.pad.split(none, 1)
v.pad.rsplit(none, 1) ~ v.empty.split() ~ v.empty.split(',') ~ v.lines.splitlines() ~ \
v.lines.splitlines(true)
v.s.startswith('Hell') ~ v.s.endswith(('x', 'World')) ~ v.s.startswith('World', 7) ~ \
v.s.find('o') ~ v.s.rfind('o') ~ v.s.find('zz')
v.s.replace('l', 'L') ~ v.s.replace('l', 'L', 1) ~ v.s.count('l') ~ v.s.index('W') ~ \
v.empty.replace('', 'x') ~ 'ab'.replace('', '-')
v.s.partition(', ') ~ v.s.rpartition('o') ~ v.s.partition('zz') ~ v.s.removeprefix('Hello') ~ \
v.s.removesuffix('World')
', '.join(v.words) ~ v.words|join ~ v.words|join('-') ~ v.rows|join(',', attribute='k') ~ \
v.mixed|join('/')
v.digits.isdigit() ~ v.s.isalpha() ~ v.digits.zfill(6) ~ '-5'.zfill(4) ~ 'ab'.center(7, '*') ~ \
'ab'.ljust(4) ~ 'ab'.rjust(4) ~ '|'
'abc'.isalnum() ~ ' '.isspace() ~ 'Ab Cd'.istitle() ~ 'AB'.isupper() ~ 'ab'.islower() ~ \
''.isalpha() ~ '½'.isnumeric()
'%s has %d (%.2f) %%' % ('x', 3, 2.675) ~ '%05d|%-4s|%+d|%x' % (42, 'ab', 7, 255) ~ '%s' % v.list
'{} {1} {x}'.format(1, 2, x=3)
'{} and {}'.format('a', v.list)
v.i + 1 ~ v.i - 10 ~ v.i * 2 ~ v.i / 2 ~ v.i // 2 ~ v.neg // 2 ~ v.i % 3 ~ v.neg % 3 ~ \
v.i ** 2 ~ 2 ** -1 ~ 7 % -3 ~ -7 // -2
v.f * 2 ~ 0.1 + 0.2 ~ 1e22 ~ 1e15 ~ 123456789.123 ~ 1 / 3 ~ 5 // 2.0 ~ -7.5 % 2 ~ 10 / 5
true + 1 ~ 'ab' * 3 ~ [1] * 2 ~ [1] + [2, 3] ~ -v.f ~ (1 == 1.0) ~ (true == 1) ~ ('1' == 1)
1 < 2 < 3 ~ (1 < v.i <= 7) ~ ('a' < 'b') ~ ([1, 2] < [1, 3]) ~ (v.i != 8) ~ (none == none) ~ \
(v.zz == v.yy)
'ell' in v.s ~ 3 in v.list ~ 'b' in v.d ~ 'zz' not in v.d ~ (1 in v.zz) ~ ('' in '')
v.t and v.s ~ (v.zero or 'x') ~ (not v.empty) ~ (v.n and 1) ~ (v.empty or v.list)
'yes' if v.t else 'no' ~ ('only' if v.zero)
'a' if v.zero
v.s is string ~ v.list is string ~ v.d is mapping ~ v.s is iterable ~ v.s is sequence ~ \
v.d is sequence ~ v.i is iterable ~ v.zz is iterable
v.i is number ~ v.t is number ~ v.t is integer ~ v.i is integer ~ v.f is float ~ \
v.t is boolean ~ v.t is true ~ v.zero is false
v.n is none ~ v.zz is none ~ v.zz is undefined ~ v.n is defined ~ v.i is odd ~ v.i is even ~ \
v.i is divisibleby 7 ~ v.i is eq 7
v.s is not string ~ v.i is in [7] ~ v.i is gt 3 ~ v.i is lessthan(3) ~ 'AB' is upper ~ \
'ab' is lower ~ v.i is sameas v.i ~ 'x' is callable
v.list|sort ~ v.list|sort(reverse=true) ~ v.words|sort ~ v.words|sort(case_sensitive=true) ~ \
v.rows|sort(attribute='n')|map(attribute='n')|list
v.rows|map(attribute='o.p')|list ~ v.words|map('upper')|list ~ \
v.rows|map(attribute='zz', default='-')|list ~ v.list|map('string')|join
v.rows|selectattr('k', 'equalto', 'x')|list|length ~ \
v.rows|rejectattr('n', 'gt', 1)|map(attribute='k')|list ~ v.list|select('odd')|list ~ \
v.list|reject('odd')|list
v.mixed|select|list ~ v.rows|selectattr('o')|list|length ~ v.words|select('in', ['a', 'b'])|list
v.list|first ~ v.list|last ~ v.list|length ~ v.list|sum ~ v.list|max ~ v.list|min ~ \
v.rows|sum(attribute='n') ~ v.s|length ~ v.d|count
v.list|reverse|list ~ v.s|reverse ~ v.words|unique|list ~ v.d|dictsort ~ v.d|items|list ~ \
v.rows|groupby('k')|list|length
v.rows|max(attribute='n') ~ v.words|min ~ v.list|batch(2)|list ~ v.list|slice(2)|list ~ \
[1,2,3]|batch(2, 0)|list
v.zz|default('d') ~ v.n|default('d') ~ v.n|default('d', true) ~ v.empty|d('e', boolean=true) ~ \
v.zz|default
v.s|upper ~ v.s|lower ~ 'hello world-foo (bar)'|title ~ 'HELLO'|capitalize ~ \
v.s|replace('o', '0') ~ v.s|replace('o', '0', 1) ~ v.s|center(20) ~ '|'
'3.7'|int ~ 'x'|int ~ 'x'|int(5) ~ 3.99|int ~ '2.5'|float ~ 'x'|float ~ 2.5|round ~ \
3.5|round ~ 2.567|round(2) ~ 7|round ~ 2.1|round(0, 'ceil') ~ -3|abs
v.n|string ~ v.t|string ~ v.list|string ~ v.html|e ~ v.html|safe ~ 42|string ~ v.pad|wordcount
v.d|tojson
v.mixed|tojson ~ v.control|tojson ~ v.big|tojson ~ v.small|tojson ~ v.whole|tojson ~ \
v.huge|tojson ~ v.html|tojson
v.mixed|tojson(indent=2) ~ {}|tojson(indent=2) ~ []|tojson(indent=2) ~ \
v.d|tojson(indent=1, sort_keys=true)
v.u|tojson(ensure_ascii=true) ~ v.d|tojson(separators=(',', ':')) ~ \
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
v.lines|indent ~ v.lines|indent(2, first=true) ~ v.lines|indent(2, blank=true) ~ \
v.lines|indent('>>')
range(5)|list ~ range(2, 8, 3)|list ~ range(5, 0, -2)|list ~ dict(a=1, b=2) ~ dict([('x', 1)])
namespace(a=1).a ~ namespace({'b': 2}).b ~ namespace().zz
'a\\tb\\x41\\u00e9\\'\\"\\\\' ~ "it's" ~ 'l1\\nl2' ~ '\\d+'
[1, 2, 3][1] ~ {'a': {'b': [5]}}.a.b[0] ~ (1, 2)[0] ~ 'abc'[1]
v.rows[0].k ~ v.rows[-1]['o']['p'] ~ v.rows|length ~ v.rows[0].zz ~ v.rows[0]['zz']
v.list.index(1) ~ v.list.count(3) ~ [1, 2].copy()
v.s|attr('upper') is callable ~ v.d|attr('b') is defined
-v.i ~ -v.list[0] ~ -v.f|abs ~ (-v.d.get('b')) ~ - -v.i
not v.t ~ (not not v.s) ~ -2 ** 2 ~ 2 ** 3 ** 2 ~ 1 + 2 * 3 - 4 // 2 ~ 'a' ~ 1 + 2
v.zz ~ '|' ~ (v.zz is defined) ~ '|' ~ (zz|default('q'))
10**20 ~ 0x1F if false else 1_000
bos_token ~ eos_token ~ unk_token is defined ~ image_token
"""

# Expressions that must fail, in both.
FAILURES = """
v.zz.yy
v.n.yy.zz
v.s + 1
v.s + v.n
1 + none
v.zz + 'a'
v.zz()
v.i()
none | length
5 | length
1 in 5
1 in 'abc'
1 / 0
1 // 0
1 % 0
v.s < 1
v.n < 1
v.list.append(4)
v.d.update({'a': 1})
v.d.pop('b')
v.list | nosuchfilter
v.list is nosuchtest
raise_exception('told you')
v.n | tojson | fromjson
[v.zz] | tojson
v.zz | tojson
range(1000000)
v.s.index('zz')
v.s.nosuch()
namespace(a=1)['b'].c
namespace(_a=1)
-v.s
{[1]: 2}
v.mixed | sort
'%d' % 'x'
{}.zz.yy
v.list['x'].y
""".strip().splitlines()

STATEMENTS = [
    "{% for x in v.list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}"
    "{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}"
    "{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{{ loop.depth }};{% endfor %}",
    "{% for x in [] %}a{% else %}none{% endfor %}{% for x in v.zz %}{% else %}undef{% endfor %}",
    "{% for x in v.list if x > 1 %}{{ x }}{{ loop.length }}{% endfor %}",
    "{% for k, w in v.d.items() %}{{ k }}={{ w }};{% endfor %}{% for k in v.d %}{{ k }}"
    "{% endfor %}",
    "{% for c in 'añ😀' %}{{ c }}.{% endfor %}{% for a, b in [[1, 2], (3, 4)] %}{{ a + b }}"
    "{% endfor %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = i + 10 %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% endfor %}"
    "{{ ns.n }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = (3, 4) %}{{ c[1] }}{% set s %} x {{ a }} "
    "{% endset %}[{{ s }}]",
    "{% set s | upper | trim %} abc {% endset %}[{{ s }}]{% filter upper %}abc{{ v.s }}"
    "{% endfilter %}",
    "{% with a = 1, b = v.i %}{{ a + b }}{% endwith %}{{ a is defined }}",
    "{% macro m(a, b=2, c=none) %}{{ a }}-{{ b }}-{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}"
    "{{ m(1) }}{{ m(1, c=3) }}{{ m(1, 2, 3, 4, x=5) }}{{ m() }}{{ m(b=1, a=0) }}{{ m.name }}",
    "{% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(20) }}",
    "{% macro w() %}<{{ caller('z') }}>{% endmacro %}{% call(x) w() %}in {{ x }} {{ v.i }}"
    "{% endcall %}",
    "{% set x = 5 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 6 %}{{ m() }}",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}"
    "{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in [1, 2] %}{% for j in [1, 2, 3] %}{% if j == 2 %}{% break %}{% endif %}"
    "{{ i }}{{ j }}{% endfor %}|{% endfor %}",
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  {%- if true -%}\n  b\n  {%- endif -%}"
    "\nc\n\n",
    "  {{ 1 }}\n  {{- 2 }}\n{{ 3 -}}  \n  x\n", "a  {# comment #}\nb\n  {#- c -#}\n d",
    "{% if true +%}\na{% endif %}\n  {%+ if true %}b{% endif %}", "{% raw %}{{ x }}{% if %}"
    "{% endraw %}",
    "x\n\n{% set a = 1 %}\n\ny\n", "\n\n{{ 1 }}\n\n", "\t {% if 1 %}\t\n\ta{% endif %}"
    "", "tail\n", "tail\n\n",
    "{{ '{{' }}{{ '%}' }}{{ \"}}\" }}", "{% generation %}\n  g{{ v.i }}\n{% endgeneration %}"
    "\nafter",
    "{%- generation -%} a {%- endgeneration -%} b", "{{ v.s\n   | upper\n }}", ""
    "{% if v.s is string and v.i > 3 or v.zz %}ok{% endif %}",
    "{% if not v.zz is defined %}u{% endif %}{% if v.zz is not defined %}w{% endif %}",
    "{% if v.n is none %}1{% elif v.t %}2{% else %}3{% endif %}"
    "", "{{ [1, 2,] }}{{ {'a': 1,} }}{{ (1,) | list }}{{ () | length }}",
    "{{ strftime_now('%Y-%m-%d %H:%M:%S %j %a %A %b %B %p %I %y %e %-d %-m %U %W %w %u %% %F"
    " %T %D') }}",
    "{% set x = namespace(l=[]) %}{% for i in v.list %}{% set x.l = x.l + [i * 2] %}"
    "{% endfor %}{{ x.l }}",
    "{% for r in v.rows | sort(attribute='n') %}{{ r.k }}{% endfor %}"
    "{% for g, rs in v.rows | groupby('k') %}{{ g }}{{ rs | length }}{% endfor %}",
    "{{ messages[0]['role'] }}{{ messages | length }}{{ tools }}{{ documents }}{{"
    " add_generation_prompt }}",
    "{% set _ = v.list.index(3) %}{{ _ }}{% do_not_a_tag", "{% if %}", "{{ }}", ""
    "{% for x in %}{% endfor %}", "{{ 'unterminated }}",
    "{% endif %}", "{% if true %}", "{% include 'x' %}", "{% import 'x' as y %}", ""
    "{% extends 'x' %}",
    "line 1\nline 2\n{{ v.zz.boom }}\n", "{% macro m() %}{{ undefined_function() }}"
    "{% endmacro %}\n\n{{ m() }}",
]

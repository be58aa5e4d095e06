"""Chat templates in the styles of the model families, written for these tests."""

SPECIALS = {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>"},
            "unk_token": None, "image_token": "<image>"}

LLAMA3 = r"""{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}

{#- The first system message moves into the header. -#}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\n\n" }}
{%- if tools is not none %}
    {{- "Call a function as {\"name\": ..., \"parameters\": {...}}.\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role']
                + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

QWEN3 = r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- "# Tools\n\nSignatures are within <tools></tools>:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and
            not(message.content.startswith('<tool_response>')
                    and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n')
                        .split('<think>')[-1].lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n'
                        + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""

MISTRAL = r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- Roles alternate, tool traffic aside. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results"
            or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must "
                    ~ "alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception(
                    "Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
"""

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

# Macros that recurse over JSON schemas, break, dictsort, call blocks, multimodal parts.
SCHEMA = r"""{%- macro render_type(spec, depth=0) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] -%}{{ render_type(spec['items'], depth + 1) }}[]{%-
                else -%}any[]{%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string -%}
        {{ spec.type | join(" | ") }}
    {%- elif spec.enum -%}
        "{{ spec.enum | join('" | "') }}"
    {%- elif spec.type == "object" -%}
        {%- if spec.properties -%}
{{ "{" }}
            {%- for name, inner in spec.properties.items() -%}
                {{ name }}{{ "?" if name not in (spec.required
                        or []) }}: {{ render_type(inner, depth + 1) }}
                {%- if not loop.last %}, {% endif -%}
            {%- endfor -%}
{{ "}" }}
        {%- else -%}object{%- endif -%}
    {%- else -%}{{ spec.type | default("any") }}{%- endif -%}
{%- endmacro -%}
{%- macro quoted(mark) %}{{ mark }}{{ caller() }}{{ mark }}{% endmacro -%}
{%- if tools -%}
    {%- for tool in tools -%}
        {%- set f = tool.function -%}
// {{ f.description }}
type {{ f.name }} = (_: {{ render_type(f.parameters) }}) => any;
{% endfor -%}
{%- endif -%}
{%- for document in documents or [] %}
[{{ loop.index }}/{{ loop.length }}] {{ document.title | title }}: {{ document.text | indent(2) }}
{% endfor -%}
{%- for message in messages %}
    {%- if message.role == "stop" %}{% break %}{% endif %}
    {%- if message.role == "skip" %}{% continue %}{% endif %}
    {%- set content -%}
        {%- if message.content is string -%}{{ message.content }}
        {%- else -%}
            {%- for part in message.content -%}
                {%- if part.type == "image" -%}{{ image_token }}
                {%- elif part.type == "text" -%}{{ part.text }}
                {%- else -%}{{ raise_exception("Unknown part " ~ part.type) }}{%- endif -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endset %}
{{ "<" ~ message.role ~ ">" }}{% generation %}{% call quoted("*")
        %}{{ content | trim }}{% endcall %}{% endgeneration %}{{ eos_token }}
{% endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}
{%- if kwargs is defined %}{{ kwargs }}{% endif %}
"""

REASONING = r"""{%- for m in messages -%}
[{{ m.role }}]{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}{%
        if m.thinking %}<{{ m.thinking }}>{% endif %}{{ m.content }}{{ m | tojson }}
{% endfor -%}
{{ reasoning_effort | default("medium") }} {{ strftime_now("%A %-d %B %Y %H:%M") }}"""

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city, e.g. \"Zürich\" <now>",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "Name & country"},
        "unit": {"enum": ["c", "f"]}, "days": {"type": ["integer", "null"], "default": 1.0},
        "tags": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
        "options": {"type": "object", "properties": {"fine": {"type": "boolean"}}}}}}}
CLOCK = {"type": "function", "function": {"name": "now", "description": "Time",
                                          "parameters": {"type": "object", "properties": {}}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **fields):
    return {"role": "assistant", "content": text, **fields}


def system(text):
    return {"role": "system", "content": text}


CALL = assistant(None, tool_calls=[{"id": "abc123def", "type": "function", "function": {
    "name": "get_weather", "arguments": {"city": "Köln", "days": 3, "x": 1.5e-7, "y": None}}}])
TWO_CALLS = assistant("Wait.", tool_calls=[
    {"id": "000000001", "function": {"name": "now", "arguments": "{\"raw\": true}"}},
    {"id": "000000002", "function": {"name": "now", "arguments": {}}}])
RESULT = {"role": "tool", "tool_call_id": "abc123def", "content": "{\"celsius\": -3}"}

CHATS = {
    "one": [user("Hi")],
    "spaces": [system("  Be brief.\n"), user("  Hi \n\n there  "), assistant("  Yes. "), user("?")],
    "turns": [system("Be kind."), user("1+1?"), assistant("2"), user("日本語 😀 <b>&\"'\\"),
              assistant("<think>\nhm\n</think>\n\nOK"), user("last")],
    "ends_with_assistant": [user("Hi"), assistant("Hello"), user("Go"), assistant("Gone")],
    "tools": [user("Weather?"), CALL, RESULT, assistant("Cold."), user("Thanks")],
    "tools_open": [system("S"), user("Weather?"), CALL, RESULT],
    "two_calls": [user("Go"), TWO_CALLS, RESULT, {**RESULT, "tool_call_id": "000000002"}],
    "wrong_order": [user("a"), user("b")],
    "wrong_role": [user("a"), {"role": "robot", "content": "b"}],
    "starts_wrong": [assistant("a"), user("b")],
    "parts": [user([{"type": "text", "text": "Look: "}, {"type": "image"},
                    {"type": "text", "text": " nice"}])],
    "bad_part": [user([{"type": "video"}])],
    "stops": [user("a"), {"role": "skip", "content": "b"}, assistant("c"),
              {"role": "stop", "content": "d"}, user("e")],
    "reasoning": [user("q"), assistant("a", reasoning_content="because"),
                  assistant("b", thinking="so"), assistant("c", reasoning="x", extra=[1, True])],
    "empty": [],
    "no_content": [{"role": "user"}],
    "long": [user(f"question {i}") if i % 2 == 0 else assistant(f"answer {i}") for i in range(301)],
}

TOOLS = [WEATHER, CLOCK]
DOCUMENTS = [{"title": "old news", "text": "line 1\nline 2"}, {"title": "o'neil", "text": ""}]

# name -> (template, the rest of the options to try with every chat)
TEMPLATES = {
    "llama3": (LLAMA3, [{}, {"tools": TOOLS}, {"kwargs": {"date_string": "1 May 2025"}}]),
    "qwen3": (QWEN3, [{}, {"tools": TOOLS}, {"kwargs": {"enable_thinking": False}}]),
    "mistral": (MISTRAL, [{}, {"tools": [WEATHER]}]),
    "chatml": (CHATML, [{}]),
    "schema": (SCHEMA, [{"tools": TOOLS}, {"documents": DOCUMENTS}]),
    "reasoning": (REASONING, [{}, {"kwargs": {"reasoning_effort": "high"}}]),
    "crlf": (CHATML.replace("{% endfor %}", "\r\n{% endfor %}\r\n\r"), [{}]),
}

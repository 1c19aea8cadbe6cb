-- Builds one document tree from the blocks of notebooks and writes it: `pandoc lua report.lua`.
-- In (JSON):  to (list of 'typst', 'html'; or of 'images'), title, authors, shown_date, date, cover,
--   template, as_source, references (BibTeX), parts: [{name, title, top, prefix, blocks: [Block of document.py]}]
-- Out (JSON): out (a text per format; lists of addresses, one per block, for 'images'), name,
--   formulas: [{where, tex, out}], warnings: [text], problems: [text]
-- No text of a notebook becomes code: pandoc's reader parses raw HTML, attributes are dropped,
-- words with special characters become Typst strings, links go to http(s), mail or this document.

local job = pandoc.json.decode(io.read('a'), false)
local List, stringify = pandoc.List, pandoc.utils.stringify
local typst = false  -- whether the document is being written as Typst, not as HTML
local reader = 'commonmark+pipe_tables+footnotes+tex_math_dollars+strikeout+task_lists'
  .. '+gfm_auto_identifiers+smart+raw_html+autolink_bare_uris'
local plain_options = pandoc.WriterOptions{wrap_text = 'none', html_math_method = 'mathml', highlight_method = 'none'}
local targets = {}   -- normalised name -> {id, title}
local equations = {} -- label or tag of a formula -> what \ref prints
local macros = List{} -- \newcommand{name}..., the last definition of each name
local result = {formulas = List{}, warnings = List{}, problems = List{}}

local function warn(where, text) result.warnings:insert(where .. ': ' .. text) end

local function write(blocks)
  return (pandoc.write(pandoc.Pandoc(blocks), typst and 'typst' or 'html5', plain_options):gsub('%s+$', ''))
end

local function literal(text)
  return '"' .. text:gsub('[\\"]', '\\%0'):gsub('\n', '\\n'):gsub('\r', '') .. '"'
end

-- Allow line breaks in words of more than `longest` characters, preferably after punctuation.
local function breakable(text, longest)
  return (text:gsub('%S+', function(word)
    if utf8.len(word) <= longest then return end
    local out, n = {}, 0
    for _, c in utf8.codes(word) do
      local char = utf8.char(c)
      n = n + 1
      out[#out + 1] = char
      if n >= longest or char:find('[,;/=&?]') then out[#out + 1], n = '\u{200b}', 0 end
    end
    return table.concat(out)
  end))
end

local function raw(text) return pandoc.RawInline('typst', text) end

-- Return blocks as a content argument of a Typst call.
local function within(call, blocks)
  return List{pandoc.RawBlock('typst', call)} .. blocks .. List{pandoc.RawBlock('typst', ']')}
end

local function note(...) return pandoc.Div({pandoc.Para{...}}, {class = 'note'}) end

local function array(items) return '(' .. table.concat(items, ', ') .. (#items > 0 and ',' or '') .. ')' end

-- READING ------------------------------------------------------------------------------------

local function any_case(word)
  return (word:gsub('%a', function(c) return '[' .. c:lower() .. c:upper() .. ']' end))
end

local media = {'video', 'audio', 'iframe', 'object', 'embed', 'canvas'}

-- Read HTML without access to files or the network. Spans of cells are limited, because pandoc
-- keeps a cell in memory for each column.
local function read_html(text, where)
  local widest = 20
  for row in (text:gsub('<[tT][rR]', '\0')):gmatch('[^%z]+') do
    local _, cells = row:gsub('<[tT][hHdD][%s>]', '')
    widest = math.max(widest, cells)
  end
  text = text:gsub('(' .. any_case('colspan') .. '%s*=%s*["\']?%s*)([^%s"\'>]*)', function(start, n)
    return start .. math.floor(math.max(1, math.min(widest, tonumber(n:match('^%d+')) or 1)))
  end)
  for _, name in ipairs(media) do
    text = text:gsub('<' .. any_case(name) .. '%f[%s>/][^>]*>', function()
      warn(where, 'the report cannot show <' .. name .. '>')
      return '<p>[' .. name .. ' not shown here]</p>'
    end):gsub('</' .. any_case(name) .. '>', '')
  end
  return pandoc.read(text, 'html', pandoc.ReaderOptions{}, {})
end

-- Return the byte ranges of code in a Markdown source.
local function code_ranges(source)
  local starts, ranges = {1}, List{}
  for at in source:gmatch('\n()') do starts[#starts + 1] = at end
  local function offset(line, column)
    local start = starts[tonumber(line)] or #source + 1
    return utf8.offset(source, tonumber(column), start) or #source + 1
  end
  local function add(element)
    local first, last = math.huge, 0
    for key, value in pairs(element.attributes) do
      for a, b, c, d in (key == 'data-pos' and value or ''):gmatch('(%d+):(%d+)%-(%d+):(%d+)') do
        first, last = math.min(first, offset(a, b)), math.max(last, offset(c, d))
      end
    end
    if last > 0 then ranges:insert{first, last} end
  end
  pandoc.read(source, reader .. '+sourcepos', pandoc.ReaderOptions{}, {}):walk{
    Code = add, CodeBlock = add,
    Div = function(div)
      if div.content[1] and div.content[1].t == 'RawBlock' then add(div) end
    end,
  }
  return ranges
end

-- Return the environment at the start of a text, including nested ones of the same name.
local function environment(text)
  local name = text:match('^\\begin{(%a+%*?)}')
  if not name then return end
  local pattern = name:gsub('%*', '%%*')
  local found = text:gsub('\\begin{' .. pattern .. '}', '\1'):gsub('\\end{' .. pattern .. '}', '\2'):match('^%b\1\2')
  return found and found:gsub('\1', '\\begin{' .. name .. '}'):gsub('\2', '\\end{' .. name .. '}')
end

local forms = List{ -- delimiters of formulas, and pandoc's math types
  {'^%$%$(%s*[^%s$].-)%$%$', '$$'}, {'^\\\\%[(.-)\\\\%]', '$$'}, {'^%$(%S[^$]-[^%s$])%$', '$'},
  {'^%$(%S)%$', '$'}, {'^\\\\%(%s*(.-)%s*\\\\%)', '$'}, {'^(\\e?q?ref{[^}]*})', '$'},
}

-- Put the mathematics that MathJax finds in Jupyter between dollar signs, which pandoc reads: bare
-- environments, \\( \\[, references outside of formulas. Code is unchanged.
local function mathematics(source)
  if not source:find('\\', 1, true) and not source:find('$$', 1, true) then return source end
  local ranges, out, at = code_ranges(source), {}, 1
  local function put(text, last) out[#out + 1], at = text, last + 1 end
  local function copy(last) put(source:sub(at, last), last) end
  -- On one line, so that no line of a formula looks like a list item; quotation marks `>` are removed.
  local function dollars(text, last, mark)
    local quoted = source:sub(1, at - 1):match('[^\n]*$'):find('^%s*>')
    text = text:gsub('([^\\])%%[^\n]*', '%1'):gsub(quoted and '\n[%s>]*' or '\n%s*', ' ')
    put(mark .. text .. mark, last)
  end
  while at <= #source do
    local range = ranges:find_if(function(r) return r[1] <= at and at < r[2] end)
    local form = not range and forms:find_if(function(f) return source:find(f[1], at) end)
    local whole = not range and environment(source:sub(at))
    if range then copy(range[2] - 1)
    elseif form and not (form[2] == '$' and source:match(form[1], at):find('\n%s*\n')) then
      local _, last, text = source:find(form[1], at)
      dollars(text, last, form[2])
    elseif whole then dollars(whole, at + #whole - 1, '$$')
    elseif source:find('^\\.', at) then copy(at + 1)
    else copy((source:find('[\\$`~<\n ]', at + 1) or #source + 1) - 1) end
  end
  return table.concat(out)
end

-- Parse HTML within Markdown, and the rest of its cell, with pandoc's HTML reader, so that tags
-- enclose the same content as in a browser.
local function read_markdown(source, where)
  local has_html, kept = false, List{}
  local doc = pandoc.read(mathematics(source) .. '\n', reader, pandoc.ReaderOptions{}, {}):walk{
    RawInline = function(el)
      if el.text:match('^</?span>$') then return {} end
      has_html = true
    end,
    RawBlock = function() has_html = true end,
  }
  if not has_html then return doc end
  local function keep(el) -- elements that HTML cannot represent
    kept:insert(el)
    return pandoc.Span({}, pandoc.Attr('', {'kept'}, {n = tostring(#kept)}))
  end
  local page = pandoc.write(doc:walk{Math = keep, Note = keep}, 'html', plain_options)
  return read_html(page, where):walk{
    Span = function(span)
      return span.classes:includes('kept') and kept[tonumber(span.attributes.n)] or nil
    end,
  }
end

-- Parse citations as pandoc, Quarto and MyST do: [@key], [@key;@other], and @key in a sentence.
local references = job.references and pandoc.read(job.references, 'bibtex').meta.references or {}
local entries = {} -- keys of the bibliography
for _, entry in ipairs(references) do entries[stringify(entry.id)] = true end

local function citations(str)
  local before, keys, after = str.text:match('^(.-)%[@([%w;@]+)%](.*)$')
  local mode = keys and 'NormalCitation' or 'AuthorInText'
  if not keys then before, keys, after = str.text:match('^(.-)@(%w+)(.*)$') end
  local cited = List{}
  for key in (keys or ''):gmatch('%w+') do
    if entries[key] then cited:insert(pandoc.Citation(key, mode)) end
  end
  return #cited > 0 and {pandoc.Str(before), pandoc.Cite({}, cited), pandoc.Str(after)} or nil
end

local prose = List{'markdown', 'computed', 'front', 'references', 'headings'}
local function read(block)
  if prose:includes(block.kind) then
    local found = read_markdown(block.text, block.where).blocks
    return block.text:find('@', 1, true) and found:walk{Str = citations} or found
  elseif block.kind == 'html' then return read_html(block.text, block.where).blocks
  elseif block.kind == 'code' or block.kind == 'parameters' then
    return pandoc.Blocks{pandoc.CodeBlock(block.text, {class = block.language})}
  elseif block.kind == 'print' or block.kind == 'error' then
    return pandoc.Blocks{pandoc.CodeBlock(block.text, {class = 'print'})}
  elseif block.kind == 'note' then
    return pandoc.Blocks{pandoc.Plain(pandoc.Emph(pandoc.Str(block.text)))}
  end
  return pandoc.Blocks{}
end

local function inlines(source, where)
  return source and pandoc.utils.blocks_to_inlines(read_markdown(source, where).blocks)
end

-- NUMBERS AND REFERENCES ---------------------------------------------------------------------

local function normal(name)
  name = name:gsub('%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end)
  if not utf8.len(name) then return name end
  return (pandoc.text.lower(name):gsub('[%s_]+', '-'):gsub('[^%w\128-\255-]', ''))
end

local function register(id, title, kind)
  local key, n = normal(id), 1
  while targets[key] do
    n = n + 1
    key = normal(id .. '-' .. n)
  end
  targets[key] = {id = n > 1 and id .. '-' .. n or id, title = title, kind = kind}
  return targets[key].id
end

-- Remove and return the title: the first heading of level 1, else a first heading of the top level.
local function take_title(part)
  local function each_header(action)
    for _, block in ipairs(part.blocks) do
      if block.kind == 'markdown' then block.tree = block.tree:walk{Header = action} end
    end
  end
  local headers, n = List{}, 0
  each_header(function(header) headers:insert(header) end)
  local title, at = headers:find_if(function(header) return header.level == 1 end)
  local above = headers:filter(function(header) return header.level <= headers[1].level end)
  if not title and #above == 1 then title, at = headers[1], 1 end
  part.found = title
  each_header(function()
    n = n + 1
    if n == at then return {} end
  end)
end

local function take_macros(text)
  local command = '\\%a*command%*?%s*{?%s*(\\%a+)%s*}?%s*'
  local function define(name, ...)
    macros = macros:filter(function(macro) return macro.name ~= name end)
    macros:insert{name = name, definition = '\\newcommand{' .. name .. '}' .. table.concat({...})}
    return ''
  end
  text = text:gsub(command .. '(%b[])%s*(%b[])%s*(%b{})', define)
    :gsub(command .. '(%b[])%s*(%b{})', define):gsub(command .. '(%b{})', define)
  text = text:gsub('\\def%s*(\\%a+)%s*([#%d]*)%s*(%b{})', function(name, arguments, body)
    local _, n = arguments:gsub('#', '')
    return define(name, n > 0 and '[' .. n .. ']' or '', body)
  end)
  text = text:gsub('\\let%s*(\\%a+)%s*=?%s*(\\%a+)', function(a, b) return define(a, '{' .. b .. '}') end)
  return (text:gsub('\\DeclareMathOperator(%*?)%s*{?(\\%a+)}?%s*(%b{})', function(star, name, body)
    return define(name, '{\\operatorname' .. star .. body .. '}')
  end))
end

-- Split an environment into rows at \\ outside of braces and inner environments.
local function rows(body)
  local found, depth, start, at = List{}, 0, 1, 1
  while at <= #body do
    if body:find('^\\begin{', at) then depth, at = depth + 1, at + 6
    elseif body:find('^\\end{', at) then depth, at = depth - 1, at + 4
    elseif depth == 0 and body:find('^\\\\', at) then
      found:insert(body:sub(start, at + 1))
      start, at = at + 2, at + 2
    elseif body:find('^\\', at) then at = at + 2
    else
      local c = body:sub(at, at)
      depth, at = depth + (c == '{' and 1 or c == '}' and -1 or 0), at + 1
    end
  end
  found:insert(body:sub(start))
  return found
end

local numbered_equations = 0
-- Move a formula's tags and labels to the end of their rows as text; return the labels too.
local function number_equation(text)
  local labels = List{}
  local function number(row)
    local label, tag, star = nil, nil, ''
    row = row:gsub('\\label%s*{([^}]*)}', function(name) label = name; return '' end)
      :gsub('\\tag(%*?)%s*(%b{})', function(s, inner) star, tag = s, inner:sub(2, -2); return '' end)
      :gsub('\\nonumber%f[%A]', ''):gsub('\\notag%f[%A]', '')
    if not (label or tag) then return row end
    if not tag then
      numbered_equations = numbered_equations + 1
      tag = tostring(numbered_equations)
    end
    if label then
      equations[label] = tag
      labels:insert(label)
    end
    local shown = '\\qquad\\text{' .. (star == '*' and tag or '(' .. tag .. ')') .. '}'
    local body, stop = row:match('^(.-)%s*(\\\\%s*)$')
    return (body or row) .. shown .. (stop or '')
  end
  local env, body = text:match('^%s*\\begin{(%a+%*?)}(.*)\\end{%1}%s*$')
  if env and env:match('^equation%*?$') or env and env:match('^subequations$') then text, env = body, nil end
  if env and List{'align', 'alignat', 'gather', 'eqnarray', 'flalign', 'multline'}:includes((env:gsub('%*', ''))) then
    text = '\\begin{' .. env .. '}' .. table.concat(rows(body):map(number)) .. '\\end{' .. env .. '}'
  else text = number(text) end
  return text, labels
end

-- Collect titles, heading levels, anchors, and the numbers of figures, tables and formulas.
local counters = {figure = 0, table = 0}
local function enrol(part)
  take_title(part)
  local shallowest = 9
  for _, block in ipairs(part.blocks) do
    block.tree:walk{Header = function(h) shallowest = math.min(shallowest, h.level) end}
  end
  local function anchor(element)
    if element.identifier == '' then return element.content end
    local id = register(part.prefix .. element.identifier)
    element.attr = pandoc.Attr(id)
    return element
  end
  if part.found then
    part.found.identifier = register(part.prefix .. part.found.identifier, stringify(part.found))
  end
  for _, block in ipairs(part.blocks) do
    block.tree = block.tree:walk{
      Span = anchor, Div = anchor,
      Figure = function(figure) -- an HTML figure has no number
        local content = figure.content
        if figure.caption.long then content:extend(figure.caption.long) end
        return content
      end,
      Math = function(el)
        local labels
        el.text, labels = number_equation(take_macros(el.text))
        if not el.text:find('%S') then return {} end
        local element = el
        for _, label in ipairs(labels) do
          element = pandoc.Span({element}, {id = register(part.prefix .. label, '(' .. equations[label] .. ')')})
        end
        return element
      end,
      Header = function(header)
        local id = register(part.prefix .. header.identifier, stringify(header.content))
        local level = block.level or math.max(1, header.level - shallowest + (part.top or 1))
        local classes = (block.kind == 'front' or block.kind == 'references') and {'unnumbered'} or {}
        return pandoc.Header(level, header.content, pandoc.Attr(id, classes))
      end,
    }
    part.length = (part.length or 0) + #stringify(block.tree) + (block.kind == 'code' and #block.text or 0)
    block.caption = inlines(block.caption, block.where)
    for _, picture in ipairs(block.pictures or {}) do picture.sub = inlines(picture.sub, block.where) end
    if block.label then
      block.label = part.prefix .. block.label
      local kind = block.kind == 'figure' and 'figure' or 'table'
      if targets[normal(block.label)] and targets[normal(block.label)].kind then
        result.problems:insert(block.where .. ": label '" .. block.label .. "' was used before; give each "
          .. 'figure and table of a notebook its own label')
      end
      counters[kind] = counters[kind] + 1
      part.final, block.finish = block, part.length
      if kind == 'figure' then part.first, part.last = part.first or block, block end
      if block.number then -- the number in the lab sheet
        block.caption = pandoc.Inlines{pandoc.Emph('Lab figure ' .. block.number .. '.'), pandoc.Space()} .. block.caption
      end
      block.number = tostring(counters[kind])
      block.name = (kind == 'figure' and 'Figure ' or 'Table ') .. block.number
      register(block.label, block.name, kind)
      for k, picture in ipairs(block.pictures or {}) do
        if picture.sub then
          local letter = string.char(96 + k)
          picture.id = register(block.label .. '-' .. letter, block.name .. letter, kind)
        end
      end
    end
  end
end

-- FORMULAS -----------------------------------------------------------------------------------

local rewritten = List{} -- MathJax commands that pandoc does not read
local function rewrite(names, pattern, by) -- `@` stands for each name of the list
  for name in names:gmatch('%S+') do rewritten:insert{pattern:gsub('@', name), (by:gsub('@', name))} end
end
rewrite('textcolor color bbox cfrac smash', '\\@%f[%A]%s*%b[]', '\\@')
rewrite('require textcolor color class cssId style href hphantom vphantom', '\\@%f[%A]%s*%b{}', '')
rewrite('bbox smash strut middle mathclap mathllap mathrlap hfil hfill tiny small normalsize large Large huge Huge',
  '\\@%f[%A]', '')
rewrite('begin end', '\\@{subequations}', '')
rewrite('kern mkern hskip', '\\@%s*%-?[%d.]+%s*%a%a', '')
rewrite('rm bf it sf tt cal', '{\\@%f[%A]%s*([^{}]*)}', '\\math@{%1}')
rewrite('rm bf it sf tt cal', '\\@%f[%A]%s*(%a+)', '\\math@{%1}')
for name, other in pairs{cfrac = '\\frac', hbox = '\\text', ldotp = '.', degree = '^\\circ', newline = '\\\\',
  operatornamewithlimits = '\\operatorname*', varinjlim = '\\underrightarrow{\\lim}', negthinspace = '\\!'} do
  rewrite(name, '\\@%f[%A]', other)
end
rewritten:extend{{'{dcases}', '{cases}'}, {'\\fbox%s*(%b{})', '\\boxed{\\text%1}'},
  {'\\intertext%s*(%b{})', '\\\\ \\text%1 \\\\'},
  {'\\unicode%s*{x(%x+)}', function(hex) return utf8.char(tonumber(hex, 16)) end}}

local fixes = { -- output of pandoc 3.9 -> equivalent that Typst 0.14 prints correctly
  {'#h%(%-1em%)', '#h(-0.17em)'}, {'#h%(0em%)', 'thick'},
  {'dot%.circle', 'dot.o'}, {'times%.circle', 'times.o'}, {'plus%.circle', 'plus.o'},
  {'delim: "||"', 'delim: "|"'}, {'delim: "‖‖"', 'delim: "‖"'},
}

local function formula(el, where)
  local tex, out = el.text, nil
  if macros:find_if(function(macro) return tex:find(macro.name .. '%f[%A]') end) then
    tex = table.concat(macros:map(function(macro) return macro.definition end)) .. tex
  end
  for _, rule in ipairs(rewritten) do tex = tex:gsub(rule[1], rule[2]) end
  local messages = pandoc.log.silence(function()
    out = write{pandoc.Plain{pandoc.Math(el.mathtype, tex)}}
  end)
  local problem = typst and (job.as_source or {})[tostring(#result.formulas + 1)]
  for _, message in ipairs(messages) do
    local known = pandoc.json.decode(pandoc.json.encode(message), false)
    if known.type == 'CouldNotConvertTeXMath' then problem = known.contents end
  end
  if typst then
    for _, fix in ipairs(fixes) do out = out:gsub(fix[1], fix[2]) end
    out = out:gsub('cases%b()', function(cases) return (cases:gsub(' & ', ' quad & ')) end)
    result.formulas:insert{where = where, tex = el.text, out = problem and '' or out}
  end
  if problem then
    warn(where, 'the formula ' .. problem .. ' is shown as its source; use commands of amsmath, for '
      .. 'example \\operatorname{...}')
    return typst and raw('#raw(' .. literal(el.text) .. ');') or pandoc.Code(el.text)
  end
  if not typst then return pandoc.RawInline('html', (out:gsub('<annotation.-</annotation>', ''))) end
  local block = el.mathtype == 'DisplayMath' and 'true' or 'false'
  return raw('#math.equation(block: ' .. block .. ', alt: ' .. literal(el.text) .. ', ' .. out .. ');')
end

-- TABLES -------------------------------------------------------------------------------------

local function is_blank(row)
  local blank = true
  local function found(el) blank = blank and el.text and not el.text:find('%S') end
  for _, cell in ipairs(row.cells) do
    cell.contents:walk{Str = found, Code = found, CodeBlock = found, Math = found, Image = found}
  end
  return blank
end

-- Return the cells {x, y, w, h, blocks, text}, without blank header rows.
local function grid(tab)
  local cells, y, taken, columns, stub = List{}, 0, {}, 0, 0
  local function add(section)
    for _, row in ipairs(section) do
      local x = 0
      taken[y] = taken[y] or {}
      for _, cell in ipairs(row.cells) do
        while taken[y][x] do x = x + 1 end
        for dy = 0, cell.row_span - 1 do
          taken[y + dy] = taken[y + dy] or {}
          for dx = 0, cell.col_span - 1 do taken[y + dy][x + dx] = true end
        end
        cells:insert{x = x, y = y, w = cell.col_span, h = cell.row_span, blocks = cell.contents,
          text = stringify(cell.contents)}
        x = x + cell.col_span
        columns = math.max(columns, x)
      end
      y = y + 1
    end
  end
  local head = tab.head.rows
  while head[1] and is_blank(head[1]) do head:remove(1) end
  add(head)
  local head_rows = y
  for _, body in ipairs(tab.bodies) do
    add(body.head)
    add(body.body)
    stub = math.max(stub, body.row_head_columns)
  end
  add(tab.foot.rows)
  return {cells = cells, columns = columns, head = head_rows, rows = y, stub = stub}
end

-- Find the columns with numbers, and those with texts long enough to wrap.
local function kinds(g)
  local numeric, long, some = {}, {}, {}
  for x = 0, g.columns - 1 do numeric[x] = true end
  for _, cell in ipairs(g.cells) do
    if cell.y >= g.head and cell.w == 1 then
      local text = cell.text:gsub('%de[-+]?%d', ''):gsub('[nN]a[nN]', ''):gsub('inf', '')
      for symbol in ('± × − – — ≤ ≥ ≈ \u{a0} \u{202f}'):gmatch('%S+') do text = text:gsub(symbol, '') end
      if text:find('[^%d%s.,%%+*/:()%[%]<>=~-]') then numeric[cell.x] = false end
      if cell.text:find('%d') then some[cell.x] = true end
      if utf8.len(cell.text) and utf8.len(cell.text) > 40 then long[cell.x] = true end
    end
  end
  for x = 0, g.columns - 1 do numeric[x] = numeric[x] and some[x] end
  return numeric, long
end


-- Write a table for the output format; `text_of` writes the blocks of a cell as Typst.
local function write_table(tab, text_of, nested)
  local function inner(blocks)
    return blocks:walk{traverse = 'topdown', Table = function(t) return write_table(t, text_of, true), false end}
  end
  local g = grid(tab)
  if g.columns == 0 then return {} end
  local numeric, long = kinds(g)
  local caption = #(tab.caption.long or {}) > 0 and tab.caption.long
  if typst then
    local align, wrapped, cells = {}, {}, {}
    for x = 0, g.columns - 1 do
      align[#align + 1] = numeric[x] and 'right' or 'left'
      if long[x] then wrapped[#wrapped + 1] = x end
    end
    for _, c in ipairs(g.cells) do
      cells[#cells + 1] = ('(%d, %d, %d, %d, %s)'):format(c.x, c.y, c.w, c.h, text_of(inner(c.blocks)))
    end
    local out = ('#%s(%d, %d, %d, %s, %s, %s)'):format(nested and 'inner-table' or 'ruled', g.columns, g.head,
      math.max(1, g.stub), array(wrapped), array(align), array(cells))
    if caption then out = '#note(sticky: true, ' .. text_of(caption) .. ')\n' .. out end
    return pandoc.RawBlock('typst', out)
  end
  local lines, specs = {}, List{}
  for _ = 1, g.columns do specs:insert{'AlignDefault', nil} end
  for y = 0, g.rows - 1 do lines[y] = List{} end
  for _, c in ipairs(g.cells) do
    local attr = pandoc.Attr('', numeric[c.x] and {'number'} or long[c.x] and {'long'} or {})
    if c.y < g.head then attr.attributes.scope = 'col' end
    lines[c.y]:insert(pandoc.Cell(inner(c.blocks), 'AlignDefault', c.h, c.w, attr))
  end
  local head, body = List{}, List{}
  for y = 0, g.rows - 1 do (y < g.head and head or body):insert(pandoc.Row(lines[y])) end
  local bodies = {{attr = pandoc.Attr(), body = body, head = {}, row_head_columns = g.head == 0 and 1 or g.stub}}
  local out = pandoc.Table({long = caption or {}}, specs, pandoc.TableHead(head), bodies, pandoc.TableFoot())
  if nested then return out end
  return pandoc.Div({out}, pandoc.Attr('', {'wide'}, {{'tabindex', '0'}, {'role', 'group'}, {'aria-label', 'table'}}))
end

-- WRITING ------------------------------------------------------------------------------------

local function length(text) -- width of an <img>: pixels, another unit, or a share of the line
  local n, unit = (text or ''):match('^%s*([%d.]+)%s*(%S*)')
  local points = {[''] = 0.75, px = 0.75, pt = 1, cm = 28.35, mm = 2.835, ['in'] = 72, em = 10.5}
  n = tonumber(n)
  if not n or n == 0 then return end
  if unit == '%' then return math.min(n, 100) .. '%' end
  return points[unit] and n * points[unit] .. 'pt'
end

local function picture(file, alt, width, height, call)
  if alt == '' then alt = 'picture' end
  if typst then
    return raw(('#%s(%s, %s, width: %s, height: %s);'):format(call or 'picture', literal(file), literal(alt),
      width or 'auto', height or 'auto'))
  end
  local style = (width and 'width:' .. width .. ';' or '') .. (height and 'height:' .. height .. ';' or '')
  return pandoc.Image({pandoc.Str(alt)}, 'picture:' .. file, '', style ~= '' and {style = style} or {})
end

local function right_to_left(content)
  for _, c in utf8.codes(stringify(content)) do
    if c >= 0x590 and c <= 0x8ff or c >= 0xfb1d and c <= 0xfdff or c >= 0xfe70 and c <= 0xfeff then return true end
    if c >= 0xc0 or utf8.char(c):find('%a') then return false end
  end
end

-- Keep a number on one line with its unit, and a statistic with its value.
local function together(content)
  for k = 2, #content - 1 do
    local before, after = content[k - 1].text, content[k + 1].text
    if content[k].t == 'Space' and content[k - 1].t == 'Str' and content[k + 1].t == 'Str'
      and (before:match('%d$') and (after:match('^%%') or after:match('^s%p*$'))
        or before:match('^%(?[pnr]$') and after:match('^[=<>]$')
        or (before:match('^[=<>]$') or before == 'ln') and after:match('^%d')) then
      content[k] = pandoc.Str('\u{a0}')
    end
  end
  return content
end

-- Finish the tree of a block: resolve references and make everything safe for the format.
local function finish(blocks, block, part)
  local rules, files = {}, block.files or {}
  function rules.Image(image)
    local file, style = files[image.src], image.attributes.style or ''
    if not file then
      local text = #image.caption > 0 and image.caption or {pandoc.Str('picture')}
      return image.src:match('^https?://') and pandoc.Link(text, image.src) or text
    end
    return picture(file, image.attributes.alt, length(image.attributes.width or style:match('%f[%a]width:%s*([^;]+)')),
      length(image.attributes.height or style:match('%f[%a]height:%s*([^;]+)')),
      not image.classes:includes('alone') and 'inline-picture')
  end
  function rules.Link(link)
    local name = link.target:match('^#(.*)$')
    if not name then
      local known = link.target:match('^https?://') or link.target:match('^mailto:')
      local content = link.content:walk{Link = function(inner) return inner.content end} -- a link around a badge
      return known and pandoc.Link(content, link.target) or content
    end
    local target = targets[normal(part.prefix .. name)] or targets[normal(name)]
    local plain, text = stringify(link.content), link.content
    local function say(words) text = {typst and target and raw('#' .. literal(words) .. ';') or pandoc.Str(words)} end
    if #text == 0 or target and target.kind and (plain:match('^Figure ?%w*$') or plain:match('^Table ?%w*$'))
      or not target and (plain == 'Figure' or plain == 'Table') then
      say(target and target.title or name:match('tbl%-[^.]*$') and 'a table not shown here' or 'a figure not shown here')
    end
    if not target then return text end
    if not typst then return pandoc.Link(text, '#' .. target.id) end
    local out = List{raw('#link(label(' .. literal(target.id) .. '))[')}
    out:extend(text)
    out:insert(raw('];'))
    return out
  end
  function rules.Cite(el) return el.content end
  function rules.Math(el)
    local kind, label = el.text:match('^%s*\\(e?q?ref){([^}]*)}%s*$')
    if label then
      local shown = equations[label] or label
      return rules.Link(pandoc.Link({pandoc.Str(kind == 'ref' and shown or '(' .. shown .. ')')}, '#' .. label))
    end
    el.text = el.text:gsub('\\eqref%s*{([^}]*)}', function(l) return '\\text{(' .. (equations[l] or l) .. ')}' end)
      :gsub('\\ref%s*{([^}]*)}', function(l) return '\\text{' .. (equations[l] or l) .. '}' end)
    return formula(el, block.where)
  end
  if typst then
    local function anchored(el)
      local mark = '#metadata(none)#label(' .. literal(el.identifier) .. ')'
      local out = List{}
      if el.identifier ~= '' then out:insert(el.t == 'Div' and pandoc.RawBlock('typst', mark) or raw(mark .. ';')) end
      out:extend(el.content)
      if el.classes:includes('lead') then out = within('#block(sticky: true, spacing: 0.95em)[', out) end
      return el.classes:includes('rtl') and within('#[#set text(dir: rtl)', out) or out
    end
    rules.Span, rules.Div = anchored, anchored
    function rules.Str(str)
      if str.text:find('[^%w.,:;?!()%%\128-\255-]') then return raw('#' .. literal(str.text) .. ';') end
    end
    function rules.Code(el) return raw('#raw(' .. literal(breakable(el.text, 90)) .. ');') end
    function rules.CodeBlock(el)
      local lang = el.classes[1] ~= 'print' and 'lang: ' .. literal(el.classes[1] or 'text') .. ', ' or ''
      return pandoc.RawBlock('typst', '#raw(block: true, ' .. lang .. literal(breakable(el.text, 90)) .. ')')
    end
    function rules.Header(el)
      if not el.classes:includes('minor') then return end
      return pandoc.RawBlock('typst', ('#minor(%d, %s)[%s]'):format(el.level, literal(el.identifier), write{pandoc.Plain(el.content)}))
    end
  end
  local function text_of(cell)
    local only = #cell == 1 and cell[1].content or #cell == 0 and List{}
    if only and (#cell == 0 or cell[1].t == 'Plain' or cell[1].t == 'Para')
      and not only:find_if(function(x) return x.t ~= 'Str' and x.t ~= 'Space' and x.t ~= 'SoftBreak' end) then
      return literal(breakable(stringify(only), 24))
    end
    return '[' .. write(cell:walk(rules)) .. ']'
  end
  local function paragraph(el)
    local image = #el.content == 1 and el.content[1].t == 'Image' and el.content[1]
    if image then
      image.classes = {'alone'}
      return pandoc.Plain{image}
    end
    if typst and el.t ~= 'Plain' and right_to_left(el) then return pandoc.Div({el}, {class = 'rtl'}), false end
  end
  if block.label then -- `show` also puts the caption into the table
    blocks = blocks:walk{Table = function(tab) tab.caption = {}; return tab end}
  end
  if typst then -- keep a short paragraph with what it introduces: headed content, formulas, code
    blocks = blocks:clone()
    for k = #blocks, 1, -1 do
      local after, length = blocks[k + 1], blocks[k].t == 'Para' and #stringify(blocks[k]) or 999
      local display = after and after.t == 'Para' and after.content[1].mathtype == 'DisplayMath'
      if length < 110 and k > 1 and blocks[k - 1].t == 'Header'
        or length < 250 and (display or not after and block.leads) then
        blocks[k] = pandoc.Div({blocks[k]}, {class = 'lead'})
      end
    end
  end
  blocks = blocks:walk{Inlines = together,
    Image = function(image) image.attributes.alt = stringify(image.caption); return image end}
  blocks = blocks:walk{traverse = 'topdown', Para = paragraph, Plain = paragraph, Header = paragraph,
    Table = function(tab) return write_table(tab, text_of, false), false end}
  return blocks:walk(rules)
end

local function finish_inlines(content, block, part)
  return pandoc.utils.blocks_to_inlines(finish(pandoc.Blocks{pandoc.Plain(content)}, block, part))
end

local function figure(block, part, caption)
  local parts, children, grid_of = {}, List{}, #block.pictures > 1 or block.pictures[1].sub
  for k, item in ipairs(block.pictures) do
    local sub = item.sub and finish_inlines(item.sub, block, part) or {}
    local alt = item.alt or stringify(item.sub or block.caption or '')
    local width = item.width and item.width .. 'pt'
    local letter = string.char(96 + k)
    if typst then
      parts[k] = ('(%s, %s, %s, [%s], %s)'):format(literal(item.file), literal(alt), width or 'auto',
        write{pandoc.Plain(sub)}, literal(item.id or ''))
    else
      local child = pandoc.Blocks{pandoc.Plain{picture(item.file, alt, width)}}
      if item.sub then
        child:insert(pandoc.Para(List{pandoc.Str('(' .. letter .. ')'), pandoc.Space()} .. List(sub)))
      end
      children:insert(pandoc.Div(child, pandoc.Attr(item.id or '')))
    end
  end
  if typst then
    if grid_of then return ('panels(%d, %s)'):format(block.columns or 1, array(parts)) end
    local item = block.pictures[1]
    return picture(item.file, item.alt or stringify(block.caption or ''), item.width and item.width .. 'pt').text:sub(2, -2)
  end
  local panels = pandoc.Attr('', {'panels'}, {style = '--columns:' .. (block.columns or 1)})
  local content = grid_of and {pandoc.Div(children, panels)} or children[1].content
  return pandoc.Figure(content, {long = caption and {pandoc.Plain(caption)} or {}}, pandoc.Attr(block.label or ''))
end

-- Return 'short' if a table hardly ever breaks, 'page' if it fits on a whole page, else 'long'.
local function extent(tree)
  local rows, wraps = 0, false
  tree:walk{Table = function(tab)
    for _, body in ipairs(tab.bodies) do
      for _, row in ipairs(body.body) do
        rows = rows + 1
        for _, cell in ipairs(row.cells) do wraps = wraps or #stringify(cell.contents) > 60 end
      end
    end
  end}
  return wraps and 'long' or rows <= 8 and 'short' or rows <= 25 and 'page' or 'long'
end

-- Return a block of a notebook as finished blocks of the document.
local function compose(block, part)
  local caption = block.caption and finish_inlines(block.caption, block, part)
  local full = caption and not typst and block.label
    and List{pandoc.Strong(block.name .. '.'), pandoc.Space()} .. caption or caption
  if block.kind == 'contents' then
    return typst and {pandoc.RawBlock('typst', '#contents()')} or {}
  elseif block.kind == 'appendix' then
    return {typst and pandoc.RawBlock('typst', '#show: appendix') or pandoc.HorizontalRule()}
  elseif block.kind == 'reference' then
    local target = targets[normal(part.prefix .. block.text)]
    if typst then
      return {pandoc.RawBlock('typst', ('#place-of(%s, %s)'):format(literal(target.id), literal(target.title)))}
    end
    return {note(pandoc.Link(target.title, '#' .. target.id))}
  end
  local blocks, body, kind = finish(block.tree, block, part), nil, 'table'
  if block.kind == 'references' and typst and #blocks > 0 then
    local heading = blocks:remove(1)
    return List{heading} .. within('#[#set text(size: 9.5pt); #set par(hanging-indent: 1.5em, justify: false)', blocks)
  elseif block.kind == 'parameters' then
    local words = 'Parameters of this run'
    blocks:insert(1, typst and pandoc.RawBlock('typst', '#note(sticky: true)[' .. words .. ']') or note(pandoc.Str(words)))
    return blocks
  elseif block.kind == 'error' then
    if typst then return within('#trouble[', blocks) end
    blocks:insert(1, note(pandoc.Strong('This cell stopped with an error.')))
    return {pandoc.Div(blocks, {class = 'error'})}
  elseif block.kind == 'figure' then
    body, kind = figure(block, part, full), 'image'
    if not typst then return {body} end
  else
    if not (block.label and blocks[1]) then return blocks end
    if not typst then
      local place = blocks:find_if(function(b) return b.t == 'Div' and b.classes:includes('wide') end)
      if place then
        place.attributes['aria-label'] = stringify(caption)
        place.content[1].caption = {long = {pandoc.Plain(full)}}
        place.content[1].attr = pandoc.Attr(block.label)
      end
      return blocks
    end
    body = '[' .. write(blocks) .. ']'
  end
  if not block.label then return {pandoc.RawBlock('typst', '#' .. body)} end
  -- Figures float; the last one of a part only if enough follows, else it could get below the next
  -- part's heading. Tables do not float, except those that would break but fit on a page, unless they
  -- end a part or are the write-up's own.
  local rest = part.length - block.finish
  local ends = kind == 'image' and block == part.last and rest < (block == part.first and 2500 or 1200)
  local closes = block == part.final and rest < 400 or block.kind == 'front'
  local size = kind == 'table' and extent(block.tree)
  local stays = ends or size and (closes or size ~= 'page')
  local placement = stays and 'none' or block == part.first and '"first"' or 'auto'
  local before = ends and '#place.flush()\n' or size and stays and size ~= 'short' and '#room\n' or ''
  return {pandoc.RawBlock('typst', before .. ('#numbered(%s, "%s", %s, %s, [%s], %s, %s)'):format(kind,
    block.name:match('%a+'), literal(block.number), literal(block.label), write{pandoc.Plain(caption)},
    placement, body))}
end

local function read_all()
  for _, part in ipairs(job.parts) do
    part.blocks = List(part.blocks or {})
    for _, block in ipairs(part.blocks) do
      block.tree = read(block)
      if block.kind == 'headings' then
        block.tree = block.tree:filter(function(b) return b.t == 'Header' and b.level > 1 end)
      end
    end
  end
end

-- Headings descend one level at a time; those below the third level have no number.
local function level_headings(blocks)
  local last = 0
  return blocks:walk{Header = function(header)
    if header.level > 3 then header.classes:extend{'minor', 'unnumbered'} end
    header.level = math.min(header.level, last + 1, 6)
    last = header.level
    return header
  end}
end

-- Return the blocks with their citations in words, and the cited entries.
local function cite(blocks)
  local found = false
  blocks:walk{Cite = function() found = true end}
  if not found then return blocks end
  blocks = pandoc.utils.citeproc(pandoc.Pandoc(blocks, {references = references, ['link-citations'] = true})).blocks
  local list = blocks:remove(#blocks)
  for _, entry in ipairs(list.content) do register(entry.identifier) end
  return blocks, List(list.content)
end

-- Complete the trees of all blocks, for every format: titles, numbers, levels of headings, citations.
local function prepare()
  for _, part in ipairs(job.parts) do enrol(part) end
  local everything = pandoc.Blocks{}
  for _, part in ipairs(job.parts) do
    if part.heading then
      local head = part.found and part.found.content or pandoc.Inlines{pandoc.Code(part.name)}
      part.blocks:insert(1, {kind = 'markdown', where = part.name .. ', title',
        tree = pandoc.Blocks{pandoc.Header(part.heading, head, pandoc.Attr(part.found and part.found.identifier or ''))}})
    end
    local all = pandoc.Blocks{}
    for _, block in ipairs(part.blocks) do all:insert(pandoc.Div(block.tree)) end
    everything:insert(pandoc.Div(all))
  end
  local bibliography
  everything, bibliography = cite(level_headings(everything))
  for p, part in ipairs(job.parts) do
    for b, block in ipairs(part.blocks) do
      block.tree = everything[p].content[b].content
      if block.kind == 'references' then block.tree = bibliography and block.tree .. bibliography or pandoc.Blocks{} end
      block.leads = (part.blocks[b + 1] or {}).kind == 'code'
    end
  end
end

local function document()
  local composed = List{}
  for _, part in ipairs(job.parts) do
    for b, block in ipairs(part.blocks) do
      local after = part.blocks[b + 1] or {}
      local done = compose(block, part)
      -- Keep code and printed output together.
      local prints = block.kind == 'code' and after.where == block.where and not after.label
      composed:extend(typst and prints and within('#block(sticky: true)[', done) or done)
    end
  end
  local first = job.parts[1]
  local head = first and first.found and first.found.content
  local title = job.title and inlines(job.title, 'title') or head or pandoc.Inlines{pandoc.Str(first.name)}
  title = {text = finish_inlines(title, {where = 'title'}, {prefix = ''}), plain = stringify(title), rtl = right_to_left(title),
    id = not job.title and head and first.found.identifier}
  return title, pandoc.Blocks(composed)
end

local function by_line(name_of)
  local names, line = List(job.authors or {}):map(name_of), List{}
  if #names > 0 then line:insert(table.concat(names, ', ')) end
  if job.shown_date then line:insert(typst and job.shown_date or name_of(job.shown_date)) end
  return table.concat(line, ' · ')
end

local function write_typst(title, blocks)
  local authors = List(job.authors or {}):map(literal)
  -- A direction mark keeps right-to-left names in order.
  local by = by_line(function(name) return right_to_left(name) and name .. '\u{200e}' or name end)
  return table.concat({
    '#import "report.typ": *',
    ('#show: report.with(title: [%s], plain: %s, dir: %s, authors: %s, by: %s, cover: %s, date: %s)'):format(
      write{pandoc.Plain(title.text)}, literal(title.plain), title.rtl and 'rtl' or 'auto', array(authors),
      literal(by), tostring(job.cover or false), job.date or 'none'),
    title.id and title.id ~= '' and '#metadata(none)#label(' .. literal(title.id) .. ')' or '',
    write(blocks),
  }, '\n')
end

local function write_html(title, blocks)
  local counts, letters = {}, false
  blocks = blocks:walk{traverse = 'topdown',
    HorizontalRule = function() counts, letters = {}, job.cover end,
    Header = function(header)
      if header.classes:includes('unnumbered') then return end
      counts[header.level] = (counts[header.level] or 0) + 1
      for k = header.level + 1, 6 do counts[k] = nil end
      local number = letters and string.char(64 + counts[1]) or tostring(counts[1])
      for k = 2, header.level do number = number .. '.' .. counts[k] end
      header.content = List{pandoc.Str(number), pandoc.Space()} .. header.content
      return header
    end}
  local variables = {code_style = job.code_style}
  variables.name = write{pandoc.Plain{pandoc.Str(title.plain)}}
  variables.heading = '<h1 dir="auto"' .. (title.id and ' id="' .. title.id:gsub('[&"<>]', '') .. '"' or '') .. '>'
    .. write{pandoc.Plain(title.text)} .. '</h1>'
  variables.by = by_line(function(name) return write{pandoc.Plain{pandoc.Span({pandoc.Str(name)}, {dir = 'auto'})}} end)
  return pandoc.write(pandoc.Pandoc(blocks), 'html5', pandoc.WriterOptions{wrap_text = 'none', highlight_method = 'none',
    table_of_contents = true, toc_depth = 2, template = pandoc.template.compile(job.template), variables = variables})
end

local function capital(out) -- a reference that begins a sentence
  return (out:gsub('([.?!>\n]%s?)a (%a+ not shown here)', '%1A %2'))
end

read_all()
if job.to[1] == 'images' then
  result.out = List{}
  for _, block in ipairs(job.parts[1].blocks) do
    local found = List{}
    block.tree:walk{Image = function(image) found:insert(image.src) end}
    result.out:insert(found)
  end
else
  prepare()
  result.out = {}
  for _, format in ipairs(job.to) do
    typst = format == 'typst'
    local title, blocks = document()
    result.name = title.plain
    result.out[format] = capital((typst and write_typst or write_html)(title, blocks))
  end
end
io.write(pandoc.json.encode(result))

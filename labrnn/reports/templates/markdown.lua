-- Turns Markdown fragments into Typst or HTML: `pandoc lua markdown.lua`, JSON in, JSON out.
-- In:  {to, targets: {label: "Figure 3"}, fragments: [{source, inline, shift, prefix, files}]}
-- Out: [{out, plain, headings: [{level, id, title}], problems: [text]}]
-- Nothing of a fragment can become code: raw HTML loses its tags, text with special characters
-- becomes a Typst string, attributes are dropped, links lead to http(s), mail or a known target.

local job = pandoc.json.decode(io.read('a'), false)
local typst = job.to == 'typst'
local reader = 'commonmark+pipe_tables+footnotes+tex_math_dollars+strikeout+task_lists'
  .. '+gfm_auto_identifiers+smart+raw_html+autolink_bare_uris'
local options = pandoc.WriterOptions{wrap_text = 'none', html_math_method = 'mathml'}

local function write(blocks)
  local out = pandoc.write(pandoc.Pandoc(blocks), typst and 'typst' or 'html5', options)
  out = out:gsub('^a (%a+ not shown here)', 'A %1')
  out = out:gsub('([.?!>\n]%s?)a (%a+ not shown here)', '%1A %2')
  return (out:gsub('%s+$', ''))
end

local function literal(text)
  return '"' .. text:gsub('[\\"]', '\\%0'):gsub('\n', '\\n') .. '"'
end

local function code(text) return pandoc.RawInline('typst', text) end

-- What pandoc 3.9 writes, and what Typst 0.14 prints rightly.
local mends = {
  {'#h%(%-1em%)', '#h(-0.17em)'}, {'#h%(0em%)', 'thick'},
  {'dot%.circle', 'dot.o'}, {'times%.circle', 'times.o'}, {'plus%.circle', 'plus.o'},
}

local function filter(fragment)
  local rules = {}
  function rules.Image(image)
    local file, alt = fragment.files[image.src], pandoc.utils.stringify(image.caption)
    if file and typst then return code('#picture(' .. literal(file) .. ', ' .. literal(alt) .. ');') end
    if file then return pandoc.Image({pandoc.Str(alt)}, file) end
    local text = #image.caption > 0 and image.caption or {pandoc.Str('picture')}
    return image.src:match('^https?://') and pandoc.Link(text, image.src) or text
  end
  function rules.Link(link)
    local name = link.target:match('^#(.*)$')
    if not name then
      local known = link.target:match('^https?://') or link.target:match('^mailto:')
      return known and pandoc.Link(link.content, link.target) or link.content
    end
    local target, title = fragment.prefix .. name, nil
    if not job.targets[target] then target = name end
    title = job.targets[target]
    local plain = pandoc.utils.stringify(link.content)
    local text = link.content
    if title and (plain == '' or plain:match('^Figure ?%w*$') or plain:match('^Table ?%w*$')) then
      text = {pandoc.Str(title)}
    elseif plain == '' or plain == 'Figure' or plain == 'Table' then
      text = {pandoc.Str((name:match('tbl%-[^.]*$') and 'a table' or 'a figure') .. ' not shown here')}
    end
    if not title then return text end
    if not typst then return pandoc.Link(text, '#' .. target) end
    local out = pandoc.List{code('#link(label(' .. literal(target) .. '))[')}
    out:extend(text)
    out:insert(code('];'))
    return out
  end
  rules.Span = function(span) return span.content end
  rules.Div = function(div) return div.content end
  if not typst then
    function rules.Note(note)
      local text = pandoc.List{pandoc.Str('[')}
      text:extend(pandoc.utils.blocks_to_inlines(note.content))
      text:insert(pandoc.Str(']'))
      return pandoc.Span(text, {class = 'note'})
    end
    return rules
  end
  rules.Table = function(tab) tab.attr = pandoc.Attr('', {'typst:no-figure'}); return tab end
  function rules.Str(str)
    if str.text:find('[^%w.,:;?!()%%\128-\255-]') then return code('#' .. literal(str.text) .. ';') end
  end
  function rules.Math(math)
    local out = write({pandoc.Plain({math})})
    for _, mend in ipairs(mends) do out = out:gsub(mend[1], mend[2]) end
    out = out:gsub('cases%b()', function(cases) return cases:gsub(' & ', ' quad & ') end)
    return code(out)
  end
  rules.Code = function(el) return code('#raw(' .. literal(el.text) .. ');') end
  function rules.CodeBlock(el)
    local lang = literal(el.classes[1] or 'text')
    return pandoc.RawBlock('typst', '#raw(block: true, lang: ' .. lang .. ', ' .. literal(el.text) .. ')')
  end
  return rules
end

-- First reading: raw HTML out, headings at their level with an id of their own.
local untagged = {
  RawInline = function(raw) return raw.text:match('^<br') and pandoc.LineBreak() or {} end,
  RawBlock = function(raw) return pandoc.read(raw.text, 'html').blocks end,
}
for _, fragment in ipairs(job.fragments) do
  fragment.doc = pandoc.read(fragment.source, reader):walk(untagged):walk{
    Header = function(header)
      local id, n = fragment.prefix .. header.identifier, 1
      while job.targets[id] do n, id = n + 1, fragment.prefix .. header.identifier .. '-' .. n + 1 end
      job.targets[id] = pandoc.utils.stringify(header.content)
      return pandoc.Header(math.max(1, header.level + fragment.shift), header.content, {id = id})
    end,
  }
end

local results = pandoc.List{}
for _, fragment in ipairs(job.fragments) do
  local result = {headings = pandoc.List{}, problems = pandoc.List{}}
  local messages = pandoc.log.silence(function()
    local doc = fragment.doc:walk(filter(fragment))
    result.plain = pandoc.utils.stringify(typst and fragment.doc or doc) -- Typst's pieces are code
    for _, block in ipairs(doc.blocks) do
      if block.t == 'Header' then
        result.headings:insert{level = block.level, id = block.identifier,
          title = write({pandoc.Plain(block.content)})}
      end
    end
    if fragment.inline then
      doc = pandoc.Pandoc({pandoc.Plain(pandoc.utils.blocks_to_inlines(doc.blocks))})
    end
    result.out = write(doc.blocks)
  end)
  for _, message in ipairs(messages) do
    local told = pandoc.json.decode(pandoc.json.encode(message), false)
    if told.type == 'CouldNotConvertTeXMath' then result.problems:insert(told.contents) end
  end
  results:insert(result)
end
io.write(pandoc.json.encode(results))

-- SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
-- Wireshark: what became of a frame in a vnet card, as fields that can be filtered for, shown as columns and
-- plotted. It takes apart the comments that vnetctl capture writes (docs/capture.md):
--
--   wireshark -X lua_script:vnet.lua nic0.pcapng
--
-- or put it into the folder of personal Lua plugins that Help, About Wireshark, Folders shows.

local vnet = Proto("vnet", "vnet card")

local texts = {
  queue = "Queue",
  chain = "Chain (head: lengths of its descriptors)",
  csum = "Checksum (valid, or to be completed: start+offset)",
  gso = "Segmentation (kind: bytes of a segment)",
  hash = "Hash (over: value)",
  thread = "Thread",
  event = "Event",
}
local numbers = {
  head = "Head of the first chain",
  descriptors = "Descriptors",
  chains = "Chains",
  headers = "Bytes of headers",
}
-- The stages in their order, and what the time from the one before is called.
local stages = {
  { "doorbell", "Doorbell" },
  { "fetch", "Fetch", "wait", "From doorbell to fetch" },
  { "backend", "Backend", "fetching", "From fetch to backend" },
  { "done", "Done", "carrying", "In the backend" },
  { "used", "Used ring", "using", "From backend to used ring" },
  { "interrupt", "Interrupt", "interrupting", "From used ring to interrupt" },
}

local fields = {}
for name, label in pairs(texts) do
  fields[name] = ProtoField.string("vnet." .. name, label)
end
for name, label in pairs(numbers) do
  fields[name] = ProtoField.uint32("vnet." .. name, label)
end
fields.indirect = ProtoField.bool("vnet.indirect", "Table of descriptors")
for _, stage in ipairs(stages) do
  local name, label, span, span_label = stage[1], stage[2], stage[3], stage[4]
  fields[name] = ProtoField.int64("vnet." .. name, label .. " (ns from the time of the frame)")
  if span then
    fields[span] = ProtoField.int64("vnet.time." .. span, span_label .. " (ns)")
  end
end
fields.total = ProtoField.int64("vnet.time.total", "From the first stage to the last (ns)")
for name, field in pairs(fields) do
  vnet.fields[name] = field
end

local comments = Field.new("frame.comment")

-- Adds a field that is not in the frame's bytes, but was made of the comment.
local function add(tree, name, value)
  tree:add(fields[name], value):set_generated()
end

local function add_chain(tree, value, first)
  add(tree, "chain", value)
  local head, table_mark, lens = value:match("^(%d+)(%a*):(.*)$")
  if not head then
    return 0
  end
  if first then
    add(tree, "head", tonumber(head))
    add(tree, "indirect", table_mark ~= "")
  end
  local count = 0
  for number, more in lens:gmatch("(%d+)(%a*)") do
    count = count + (more ~= "" and tonumber(number) or 1)
  end
  return count
end

local function add_frame(tree, text)
  local times, chains, descriptors, told = {}, 0, 0, nil
  for key, value in text:gmatch("(%l+)=(%S+)") do
    if key == "chain" then
      descriptors = descriptors + add_chain(tree, value, chains == 0)
      chains = chains + 1
    elseif key == "chains" then
      told = tonumber(value)
    elseif texts[key] then
      add(tree, key, value)
    elseif numbers[key] then
      add(tree, key, tonumber(value))
    else
      times[key] = tonumber(value)
    end
  end
  add(tree, "chains", told or chains)
  add(tree, "descriptors", descriptors)
  local first, before
  for _, stage in ipairs(stages) do
    local name, span = stage[1], stage[3]
    local at = times[name]
    if at then
      add(tree, name, Int64.new(at))
      if span and before then
        add(tree, span, Int64.new(at - before))
      end
      first = first or at
      before = at
    end
  end
  if before then
    add(tree, "total", Int64.new(before - first))
  end
end

function vnet.dissector(_, _, tree)
  for _, comment in ipairs({ comments() }) do
    local text = tostring(comment.value)
    if text:match("^vnet queue=") then
      add_frame(tree:add(vnet), text)
    end
  end
end
register_postdissector(vnet)

-- What stands between the frames, on an interface of its own: what went wrong, as text.
local events = Proto("vnet_event", "vnet card: what went wrong")
local event_fields = {
  kind = ProtoField.string("vnet_event.kind", "Kind"),
  queue = ProtoField.string("vnet_event.queue", "Queue"),
  text = ProtoField.string("vnet_event.text", "Text"),
}
events.fields = event_fields

function events.dissector(buffer, pinfo, tree)
  local text = buffer():string()
  local kind, rest = text:match("^vnet event=(%l+) (.*)$")
  if not kind then
    return 0
  end
  local queue = rest:match("^queue=(%w+) ")
  pinfo.cols.protocol = "vnet"
  pinfo.cols.info = kind .. ": " .. rest
  local branch = tree:add(events, buffer())
  branch:add(event_fields.kind, kind)
  if queue then
    branch:add(event_fields.queue, queue)
    rest = rest:sub(#queue + 8)
  end
  branch:add(event_fields.text, rest)
  return buffer:len()
end
DissectorTable.get("wtap_encap"):add((wtap_encaps or wtap).USER0, events)

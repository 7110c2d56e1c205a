// Decodes with mqtt-packet: one line `<protocol level> <hex>` in, one line of JSON out, which is
// {packet: {name, fields}}, {refused} or "incomplete". Fields are [name, value] pairs of texts, by
// the names of the standard; payloads and binary data are in hex.

'use strict'

const mqtt = require('mqtt-packet')
const readline = require('node:readline')

const words = name => name.replace(/QoS|[A-Z]/g, part => ' ' + (part === 'QoS' ? part : part.toLowerCase()))
const text = value => Buffer.isBuffer(value) ? value.toString('hex') : String(typeof value === 'boolean' ? Number(value) : value)
const list = value => Array.isArray(value) ? value : [value]

// Names that mqtt-packet does not take from the standard.
const properties = { subscriptionIdentifiersAvailable: 'subscription identifier available' }

function addProperties (fields, prefix, all = {}) {
  for (const [name, value] of Object.entries(all)) {
    if (name === 'userProperties') {
      for (const [key, values] of Object.entries(value)) {
        for (const one of list(values)) fields.push([prefix + 'user property', key + '=' + one])
      }
    } else {
      for (const one of list(value)) fields.push([prefix + (properties[name] || words(name)), text(one)])
    }
  }
}

const code = packet => text(packet.reasonCode ?? packet.returnCode ?? 0)

function fieldsOf (packet) {
  const fields = []
  const add = (name, value) => fields.push([name, text(value)])
  switch (packet.cmd) {
    case 'connect':
      add('version', packet.protocolVersion)
      add('bridge', packet.bridgeMode === true)
      add('clean', packet.clean)
      add('keep alive', packet.keepalive)
      add('client id', packet.clientId)
      if (packet.will) {
        add('will topic', packet.will.topic)
        add('will payload', packet.will.payload)
        add('will qos', packet.will.qos)
        add('will retain', packet.will.retain)
        addProperties(fields, 'will ', packet.will.properties)
      }
      if (packet.username !== undefined) add('user name', packet.username)
      if (packet.password !== undefined) add('password', packet.password)
      break
    case 'connack':
      add('session present', packet.sessionPresent)
      add('code', code(packet))
      break
    case 'publish':
      add('qos', packet.qos)
      add('dup', packet.dup)
      add('retain', packet.retain)
      if (packet.qos > 0) add('id', packet.messageId)
      add('topic', packet.topic)
      add('payload', packet.payload)
      break
    case 'puback':
    case 'pubrec':
    case 'pubrel':
    case 'pubcomp':
      add('id', packet.messageId)
      add('code', code(packet))
      break
    case 'subscribe':
      add('id', packet.messageId)
      for (const { topic, qos, nl, rap, rh } of packet.subscriptions) {
        add('filter', `${topic} qos ${qos} nl ${Number(nl || 0)} rap ${Number(rap || 0)} rh ${rh || 0}`)
      }
      break
    case 'unsubscribe':
      add('id', packet.messageId)
      for (const topic of packet.unsubscriptions) add('filter', topic)
      break
    case 'suback':
    case 'unsuback':
      add('id', packet.messageId)
      for (const granted of packet.granted || []) add('code', granted)
      break
    case 'disconnect':
    case 'auth':
      add('code', code(packet))
      break
  }
  addProperties(fields, '', packet.properties)
  return fields
}

function decode (level, bytes) {
  let first
  const parser = mqtt.parser({ protocolVersion: level })
  parser.on('packet', packet => { first ??= { packet: { name: packet.cmd, fields: fieldsOf(packet) } } })
  parser.on('error', error => { first ??= { refused: error.message } })
  try {
    parser.parse(bytes)
  } catch (error) {
    first ??= { refused: 'threw ' + error.name }
  }
  return first || 'incomplete'
}

readline.createInterface({ input: process.stdin }).on('line', line => {
  const [level, hex] = line.split(' ')
  process.stdout.write(JSON.stringify(decode(Number(level), Buffer.from(hex, 'hex'))) + '\n')
})

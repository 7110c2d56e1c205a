// Drives an MQTT.js client: one JSON command a line in, one JSON event a line out.
// The values are `Command` and `Event` of tests/src/client.rs.
'use strict'

const mqtt = require('mqtt')
const readline = require('node:readline')

const emit = (event, values) => process.stdout.write(JSON.stringify({ event, ...values }) + '\n')

const fail = (error) => {
  console.error(error)
  process.exit(1)
}

// MQTT.js keeps User Properties as an object: pairs of the same name stay together.
function toUserProperties (pairs) {
  const properties = Object.create(null)
  for (const [name, value] of pairs) (properties[name] ??= []).push(value)
  return properties
}

function toProperties (values) {
  const properties = {}
  if (values.user.length > 0) properties.userProperties = toUserProperties(values.user)
  if (values.content_type !== null) properties.contentType = values.content_type
  if (values.response_topic !== null) properties.responseTopic = values.response_topic
  if (values.correlation_data !== null) {
    properties.correlationData = Buffer.from(values.correlation_data, 'hex')
  }
  if (values.payload_format !== null) properties.payloadFormatIndicator = values.payload_format === 1
  if (values.message_expiry !== null) properties.messageExpiryInterval = values.message_expiry
  if (values.will_delay !== null) properties.willDelayInterval = values.will_delay
  return properties
}

function fromProperties (properties = {}) {
  const user = Object.entries(properties.userProperties ?? {})
    .flatMap(([name, values]) => [values].flat().map((value) => [name, value]))
  const format = properties.payloadFormatIndicator
  return {
    user,
    content_type: properties.contentType,
    response_topic: properties.responseTopic,
    correlation_data: properties.correlationData?.toString('hex'),
    payload_format: format === undefined ? undefined : Number(format),
    message_expiry: properties.messageExpiryInterval,
    subscription_ids: [properties.subscriptionIdentifier ?? []].flat()
  }
}

let client
let v5
let serverCode = null

const commands = {
  connect (command) {
    v5 = command.version === 5
    const will = command.will && {
      topic: command.will.topic,
      payload: Buffer.from(command.will.payload, 'hex'),
      qos: command.will.qos,
      retain: command.will.retain,
      properties: v5 ? toProperties(command.will.properties) : undefined
    }
    client = mqtt.connect({
      protocol: 'mqtt',
      host: command.host,
      port: command.port,
      protocolVersion: command.version,
      protocolId: command.version === 3 ? 'MQIsdp' : 'MQTT',
      clientId: command.client_id,
      clean: command.clean,
      keepalive: command.keep_alive,
      reconnectPeriod: 0,
      resubscribe: false,
      will: will ?? undefined,
      properties: v5 ? { sessionExpiryInterval: command.session_expiry } : undefined
    })
    client.on('connect', (packet) => emit('connected', { session_present: packet.sessionPresent }))
    client.on('message', (topic, payload, packet) => emit('message', {
      topic,
      payload: payload.toString('hex'),
      qos: packet.qos,
      retain: packet.retain,
      properties: fromProperties(packet.properties)
    }))
    client.on('disconnect', (packet) => { serverCode = packet.reasonCode })
    client.on('close', () => emit('disconnected', { code: serverCode }))
    client.on('error', fail)
  },

  subscribe (command) {
    const options = { qos: command.qos }
    if (v5) {
      options.nl = command.no_local
      options.rap = command.retain_as_published
      options.rh = command.retain_handling
      if (command.subscription_id !== null) {
        options.properties = { subscriptionIdentifier: command.subscription_id }
      }
    }
    client.subscribe(command.filter, options, (error, granted) => {
      if (error) fail(error)
      emit('subscribed', { code: granted[0].qos })
    })
  },

  unsubscribe (command) {
    client.unsubscribe(command.filter, (error) => error ? fail(error) : emit('unsubscribed'))
  },

  publish (command) {
    const options = { qos: command.qos, retain: command.retain }
    if (v5) options.properties = toProperties(command.properties)
    const payload = Buffer.from(command.payload, 'hex')
    client.publish(command.topic, payload, options, (error) => error ? fail(error) : emit('published'))
  },

  disconnect (command) {
    client.end(false, v5 ? { reasonCode: command.code } : {})
  }
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line)
  commands[command.do](command)
})

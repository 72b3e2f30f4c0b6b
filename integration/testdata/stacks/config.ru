# A Rack app.
BODY = "g#{ENV['ENTRYPOINT_GENERATION']} served\n"
run lambda { |env|
  sleep 0.2 if env['PATH_INFO'] == '/slow'
  [200, { 'Content-Length' => BODY.bytesize.to_s }, [BODY]]
}
